/* window.pml: how memory goes back through its window: hints, punching, orphaned windows and their next owner, with kills.
 *
 * Stands for shm/window.c, for the ends of try_free, give_back and of a sweep's look at a row (shm/descriptor.c, shm/sweep.c). One window
 * with two blocks, two rows of descriptors, which share a word of hints and its summary; processes 0 and 1 may own the window, 0, 1 and 2
 * hold, free, sweep and reclaim; S survives. What hold.pml shows is taken as one step here: clearing a bit and freeing if it was the last.
 * Everything behind that is a step of its own, and before each a process may be killed.
 * Default search: an invalid end state is a deadlock and an error.
 *
 * Checked, in every interleaving (D: the invariants of shm/README.md):
 *   a block's pages are punched, or the block goes back to a heap, only while nobody uses it and before it is another segment's (D5);
 *   a row goes from DEAD to FREE once, through the window's owner or whoever has its byte lock (D5);
 *   a window has a new owner only when nothing is held in it;
 *   an owner that has taken its hints when all others are done has nothing dead in its window: no hint is lost; if somebody was killed,
 *   when it has been swept;
 *   after one sweep by the survivor nothing is left: rows, blocks, window (D3).
 *
 * run.sh takes the following from here; see there.
 *   pan    -DVECTORSZ=2048 -m200000
 *   sound  calm                1233642  -DMAXC=0
 *   sound  kill                2327460  -DOPS2=1
 *   sound  large               1740858  -DOPS0=1 -DLARGE=1
 *   sound  attended            1793764  -DOPS0=1 -DLARGE=2
 *   sound  kill2               1080693  -DMAXC=2 -DOPS0=1 -DOPS2=1
 *   larger kill_full           5099505
 * Broken on purpose, -DBROKEN_ and the first word; the assertion that catches it contains the second:
 *   broken FLAG_FIRST    ncrash         -DMAXC=0
 *   broken KEEP_TWO      used==0        -DOPS0=1
 *   broken USED_EARLY    wlk==(i+1)
 *   broken NOLOCK        wlk==(i+1)
 *   broken PUNCH_LATE    blk[b]==(2+d)  -DLARGE=1
 *   broken HELD_PUNCH    ph[0]==0       -DLARGE=1 -DOPS0=1
 *
 * NOT here: weak memory (litmus/), mapping windows, several windows, ranges that overlap or lie elsewhere (D6), a failed fallocate or
 * calloc, blocks that are never published.
 */
#ifndef MAXC
#define MAXC 1            /* kills, at most */
#endif
#ifndef OPS0
#define OPS0 2            /* operations of each process, letting go and taking hints not counted */
#endif
#ifndef OPS1
#define OPS1 2
#endif
#ifndef OPS2
#define OPS2 2
#endif
#ifndef LARGE
#define LARGE 0           /* 1: segments are large: a remote freer punches; 2: or not, if their owner sees to them */
#endif
#define NP 3
#define ND 2
#define FREE 0
#define RESV 1
#define LIVE 2
#define DEAD 4
#define PUNCH 5
/* ---- shared */
byte ph[ND], who[ND], rb[ND];        /* S's phase and x; the row's block + 1 */
byte hb[ND];                         /* holders, a bit a process */
byte bits; bool summary, hinted;     /* hints */
byte used, wlk, lk[NP]; bool dirty[NP];
/* ---- ghosts */
byte use[NP];                        /* row + 1 that a process uses */
byte blk[ND];                        /* 0 free, 1 a heap's, 2+d row d's */
bool done[NP], quiet, heard, alone; byte ncrash=MAXC;

#define nobody(d) assert(use[0]!=(d)+1 && use[1]!=(d)+1 && use[2]!=(d)+1)
#define none_dead (ph[0]!=DEAD && ph[1]!=DEAD)
#if MAXC==0
#define STEP(x) atomic{ x }
#else
#define STEP(x) if :: atomic{ x } :: atomic{ i<NP && ncrash>0 -> ncrash--; goto dead } fi
#endif

proctype Proc(byte i) {
  byte n, z, m, d, b, h, left, cov, given, mine; bool f, own, insweep, giving;
  n=(i==0 -> OPS0 : (i==1 -> OPS1 : (i==2 -> OPS2 : 0)));
again:
  if :: i==NP -> goto survivor :: else fi;
  do
  :: atomic{ n>0 && i!=2 && mine==0 && (own || used==0) && (ph[0]==FREE || ph[1]==FREE) -> n-- }; goto publish
  :: atomic{ n>0 && mine==0 && ph[0]==LIVE -> n--; hb[0]=hb[0]|(1<<i); mine=1; use[i]=1 }                 /* attach */
  :: atomic{ n>0 && mine==0 && ph[1]==LIVE -> n--; hb[1]=hb[1]|(1<<i); mine=2; use[i]=2 }
  :: atomic{ mine!=0 -> d=mine-1; mine=0; use[i]=0 }; goto drop
  :: own && hinted -> goto take_hints
  :: atomic{ n>0 && mine==0 && dirty[(i+1)%NP] && lk[(i+1)%NP]==0 -> n--; m=(i+1)%NP }; goto sweep
  :: atomic{ n>0 && mine==0 && dirty[(i+2)%NP] && lk[(i+2)%NP]==0 -> n--; m=(i+2)%NP }; goto sweep
  :: atomic{ n>0 && mine==0 && !own && used!=0 && wlk==0 -> n-- }; goto reclaim
  :: mine==0 -> break
  od;
  if :: i==0 && own && z==0 -> z=1; n=0; done[0]=1; quiet; goto take_hints
     :: z==1 -> assert(none_dead || ncrash<MAXC); z=2; heard=1; alone; goto take_hints
     :: z==2 -> assert(none_dead)
     :: else fi;
  goto dead;

publish:
  if :: !own ->                                                                /* take */
        STEP( f=(used==0 && wlk==0); if :: f -> wlk=i+1 :: else fi );
        if :: f -> STEP( f=(used==0) );
              if :: f -> STEP( used=1 ); atomic{ assert(blk[0]<2 && blk[1]<2); blk[0]=0; blk[1]=0; own=1 }
                 :: else -> STEP( wlk=0 ) fi
           :: else fi
     :: else fi;
  if :: own && blk[0]==0 -> b=0 :: own && blk[1]==0 -> b=1 :: else -> atomic{ f=0; goto again } fi;
  STEP( blk[b]=1; d=(ph[0]==FREE -> 0 : 1); f=(ph[d]==FREE); if :: f -> ph[d]=RESV; who[d]=i :: else -> blk[b]=0 fi );
  if :: f ->
        STEP( rb[d]=b+1 );
        STEP( assert(ph[d]==RESV && who[d]==i && hb[d]==0); ph[d]=LIVE; who[d]=0; hb[d]=1<<i; blk[b]=2+d;
              given=given|(1<<d); mine=d+1; use[i]=d+1 )
     :: else fi;
  atomic{ d=0; b=0; f=0; goto again };

drop:                         /* our bit of d, or in a sweep that of m; the segment with the last one */
  if :: !insweep -> m=i :: else fi;
  STEP( hb[d]=hb[d]&~(1<<m); f=(ph[d]==LIVE && hb[d]==0);
        if :: f -> nobody(d); if :: LARGE && !own -> ph[d]=PUNCH; who[d]=i :: LARGE!=1 || own -> ph[d]=DEAD fi :: else fi );
  if :: !f -> goto dropped :: else fi;
  if :: ph[d]==PUNCH && who[d]==i ->
#ifdef BROKEN_PUNCH_LATE
        STEP( b=rb[d]-1; ph[d]=DEAD; who[d]=0 );
#else
        b=rb[d]-1;
#endif
        STEP( assert(blk[b]==2+d); nobody(d) );                                /* the pages go */
#ifndef BROKEN_PUNCH_LATE
        STEP( f=(ph[d]==PUNCH && who[d]==i); if :: f -> ph[d]=DEAD; who[d]=0 :: else fi );
#endif
        b=0
     :: else fi;
  if :: !f -> goto dropped :: f && own -> f=0; goto give_back :: else -> goto hint fi;
hint:
#ifdef BROKEN_FLAG_FIRST
  STEP( hinted=1 );
  STEP( summary=1 );
  STEP( bits=bits|(1<<d) );
#else
  STEP( bits=bits|(1<<d) );
  STEP( summary=1 );
  STEP( hinted=1 );
#endif
  if :: insweep && f==0 -> goto next :: else fi;
dropped:
  f=0;
  if :: insweep -> goto look :: else -> atomic{ d=0; m=0; goto again } fi;

take_hints:
  STEP( f=hinted; hinted=0 );
  if :: f -> f=0 :: else -> goto again fi;
  STEP( f=summary; summary=0 );
  if :: f -> f=0 :: else -> goto again fi;
  STEP( left=bits; bits=0 );
  giving=1;
given_next:
  if :: left&1 -> left=left&2; d=0
     :: !(left&1) && (left&2) -> left=0; d=1
     :: else -> giving=0; d=0; goto again fi;
give_back:                    /* row d, DEAD -> FREE */
  STEP( f=((given&(1<<d)) && ph[d]==DEAD) );
  if :: f ->
        atomic{ given=given&~(1<<d); b=rb[d]-1 };
        STEP( assert(ph[d]==DEAD); ph[d]=FREE );
        STEP( nobody(d); assert(blk[b]==2+d); blk[b]=0 );                      /* the heap has it */
        b=0
     :: else fi;
  f=0;
  if :: giving -> goto given_next :: else -> goto dropped fi;

  /* ---------------- sweep.c: place m */
sweep:
  STEP( f=(dirty[m] && lk[m]==0); if :: f -> lk[m]=i+1 :: else fi );
  if :: !f -> atomic{ m=0; goto again } :: else -> f=0 fi;
  STEP( f=dirty[m] );
  if :: !f -> goto unlock :: else -> f=0 fi;
  insweep=1;
row:
  STEP( if :: who[d]==m && ph[d]==RESV -> ph[d]=FREE; who[d]=0 :: who[d]==m && ph[d]==PUNCH -> ph[d]=DEAD; who[d]=0 :: else fi );
  goto drop;
look:
  STEP( f=(ph[d]==DEAD) );
  if :: f -> f=0; goto hint :: else fi;
next:
  d++;
  if :: d<ND -> goto row :: else -> d=0; insweep=0 fi;
  STEP( dirty[m]=0 );
unlock:
  STEP( lk[m]=0 );
  atomic{ m=0; goto again };

reclaim:                      /* the window, if it has no owner */
  STEP( f=(!own && used!=0 && wlk==0);
#ifndef BROKEN_NOLOCK
        if :: f -> wlk=i+1 :: else fi
#endif
        );
  if :: !f -> goto again :: else -> f=0 fi;
  STEP( h=used );
  if :: h==2 -> STEP( if :: hinted -> h=1 :: else fi ) :: else fi;
  if :: h==1 ->
#ifndef BROKEN_KEEP_TWO
        STEP( used=1 );
#endif
        STEP( hinted=0 );
        h=0;
        do                                                                     /* free_dead */
        :: d<ND ->
           STEP( f=(ph[d]==DEAD);
#ifdef BROKEN_HELD_PUNCH
                 if :: ph[d]==LIVE -> h++ :: else fi );
#else
                 if :: ph[d]==LIVE || ph[d]==PUNCH -> h++ :: else fi );
#endif
           if :: f -> STEP( if :: ph[d]==DEAD -> nobody(d); ph[d]=FREE :: else fi ) :: else fi;
           d++
        :: else -> break
        od;
        d=0; f=0; left=h; cov=0;
#ifdef BROKEN_USED_EARLY
        STEP( used=(h==0 -> 0 : 2) );
        STEP( wlk=0 );
#endif
        do                                                                     /* cover */
        :: d<ND && left>0 -> STEP( if :: ph[d]!=FREE && ph[d]!=RESV -> cov=cov|(1<<(rb[d]-1)); left-- :: else fi ); d++
        :: else -> break
        od;
        d=0; left=0;
        do                                                                     /* punch_gaps */
        :: b<ND ->
           if :: !(cov&(1<<b)) -> STEP( assert(blk[b]==0 || wlk==i+1); if :: blk[b]>1 -> nobody(blk[b]-2) :: else fi; blk[b]=0 ) :: else fi;
           b++
        :: else -> break
        od;
        b=0; cov=0;
#ifndef BROKEN_USED_EARLY
        STEP( used=(h==0 -> 0 : 2) )
#else
        h=0; goto again
#endif
     :: else fi;
  h=0;
#ifndef BROKEN_NOLOCK
  STEP( wlk=0 );
#endif
  goto again;

survivor:                     /* process 0 may be alive still, with its window: first the others */
  z++;
  if
  :: z==1 -> done[0] && done[1] && done[2]; quiet=1; heard || lk[0]==0; m=1; goto sweep
  :: z==2 || z==5 -> m=2; goto sweep
  :: z==3 -> alone=1; lk[0]==0; m=0; goto sweep
  :: z==4 -> m=1; goto sweep
  :: z==6 -> goto reclaim
  :: z==7 -> atomic{ assert(used==0); assert(ph[0]==FREE && ph[1]==FREE); assert(hb[0]==0 && hb[1]==0);
                     assert(blk[0]==0 && blk[1]==0); assert(!dirty[0] && !dirty[1] && !dirty[2]); goto over }
  fi;

dead:                         /* killed, or at its end */
  atomic{ use[i]=0; mine=0; given=0; own=0; m=0; d=0; b=0; h=0; left=0; cov=0; n=0; z=0; f=0; insweep=0; giving=0;
    if :: lk[0]==i+1 -> lk[0]=0 :: else fi; if :: lk[1]==i+1 -> lk[1]=0 :: else fi; if :: lk[2]==i+1 -> lk[2]=0 :: else fi;
    if :: wlk==i+1 -> wlk=0 :: else fi;
    done[i]=1 };
over: skip
}
init { atomic{ dirty[0]=1; dirty[1]=1; dirty[2]=1; lk[0]=1; lk[1]=2; lk[2]=3;
  run Proc(0); run Proc(1); run Proc(2); run Proc(NP) } }
