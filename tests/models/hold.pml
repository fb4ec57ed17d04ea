/* hold.pml: who holds a published segment, and who frees it, when any process may be killed before any step.
 *
 * Stands for shm/descriptor.c (publish, hold, unhold, try_free, give_back), shm/sweep.c, shm/member.c (join, byte locks) and, as far as one
 * descriptor needs it, shm/window.c. Three processes, the survivor S that looks after them, one row of the table of descriptors, which is
 * used again in the next generation, one window. Every access to a shared word is a step; before each a process may be killed. Inside a
 * process one thread: its slot and its table are in slot.pml. The sequence number in S is abstracted exactly: mv[i] = "S has moved since i
 * read it"; so a compare-exchange of S succeeds iff it has not. A bit is a word of its own: the worst case for a scan.
 * Default search: an invalid end state is a deadlock and an error.
 *
 * Checked, in every interleaving (D: the invariants of shm/README.md):
 *   a segment dies only when nobody uses it, and once; its memory goes back once, when it is dead, never in a later one's stead (D1, D5);
 *   a stale token never attaches; who holds finds its own segment's row (D1);
 *   a place is in one process's hands at a time, and the bits of the living are never touched (D4);
 *   whoever is alone, with its own window, and has taken its hints has nothing dead in it;
 *   after one sweep by the survivor nothing is left: rows, bits, memory, window, places (D3).
 *
 * run.sh takes the following from here; see there.
 *   pan    -DVECTORSZ=2048 -m200000
 *   sound  generations         1019596  -DMAXC=0 -DGENS=2 -DOPS0=2
 *   sound  kill                 715307  -DOPS1=2
 *   larger kill_generations    1085107  -DGENS=2 -DOPS0=2 -DOPS1=1
 *   sound  rejoin               376240  -DREJOIN=1 -DOPS2=0
 *   sound  kill2                489043  -DMAXC=2 -DREJOIN=1 -DOPS2=0
 *   sound  late                1188836  -DLATE=1 -DLARGE=1
 *   sound  attended            1447389  -DLATE=1 -DLARGE=2
 *   sound  exits                305095  -DEXITS=1 -DMAXC=0
 *   larger rejoin_full         4628890  -DREJOIN=1
 * Broken on purpose, -DBROKEN_ and the first word; the assertion that catches it contains the second:
 *   broken NOMOVE        use[0]!=lg     -DMAXC=0
 *   broken MARK_FIRST    use[0]!=lg     -DMAXC=0 -DLATE=1
 *   broken NODUTY        ph!=2          -DMAXC=0 -DGENS=2 -DOPS0=2
 *   broken NOHINT        ph==0          -DMAXC=1
 *   broken PUNCH_LATE    blk==lg        -DLARGE=1
 *   broken SWEEP_NOLOCK  ph==0          -DREJOIN=1 -DOPS1=1 -DOPS2=2 -DOPS0=0
 *   broken ADOPT         hb[i]          -DREJOIN=1
 *
 * NOT here: weak memory (litmus/), tickets (ticket.pml), fork (fork.pml), several descriptors and windows (window.pml), threads (slot.pml),
 * freeze and make_writable (slot.pml), memory of one process alone (LOCAL), garbage written by a peer (D6).
 */
#ifndef MAXC
#define MAXC 1            /* kills, at most */
#endif
#ifndef REJOIN
#define REJOIN 0          /* new processes that take a dead one's place, at most */
#endif
#ifndef GENS
#define GENS 1            /* segments published, one after the other */
#endif
#ifndef OPS0
#define OPS0 1            /* operations of each process, letting go not counted */
#endif
#ifndef OPS1
#define OPS1 2
#endif
#ifndef OPS2
#define OPS2 1
#endif
#ifndef LARGE
#define LARGE 0           /* 1: the segment is large: a remote freer punches its pages; 2: or not, if its owner sees to them */
#endif
#ifndef LATE
#define LATE 0            /* 1: process 2 joins while the others are at work */
#endif
#ifndef EXITS
#define EXITS 0           /* 1: a process may end with what it holds (an exit, no kill) */
#endif
#define NP 3              /* processes; the survivor is member NP */
#define FREE 0
#define RESV 1
#define LIVE 2
#define DEAD 4
#define PUNCH 5
#define OWNED 255

/* ---- shared. S: one word */
byte ph=FREE, gen=1, who;            /* phase, generation, x in RESV and PUNCH */
bool hb[NP];                         /* holders */
byte high;                           /* mark of members */
bool dirty[NP];
byte lk[NP], wlk;                    /* byte locks: 0, or holder+1 */
byte used; bool hint;                /* the window: used, hinted */
/* ---- the sequence number, see above */
bool mv[NP+1]=1;
/* ---- ghosts */
byte use[NP];                        /* generation that a process uses */
byte blk;                            /* the block's segment: 0 none, OWNED not published, else its generation */
byte freed[GENS+2], ret[GENS+2]; bool publ[GENS+2];
bool here[NP];                       /* a process is in that place */
bool done[NP], alone, fin;
byte ncrash=MAXC, nrejoin=REJOIN;

#define moved() mv[0]=1; mv[1]=1; mv[2]=1; mv[3]=1
#if MAXC==0
#define STEP(x) atomic{ x }
#else
#define STEP(x) if :: d_step{ x } :: atomic{ i<NP && ncrash>0 -> ncrash--; goto dead } fi
#endif

#define nobody(g) assert(use[0]!=g && use[1]!=g && use[2]!=g)

proctype Proc(byte i) {       /* i==NP: the survivor */
  byte n, z, m, g, lph, lg, h, c, k, mine, given; bool f, ok, own, insweep, joining;
  n=(i==0 -> OPS0 : (i==1 -> OPS1 : (i==2 -> OPS2 : 0)));
  if :: LATE && i==2 -> goto newcomer :: else fi;
again:
  if :: i==NP -> goto survivor :: else fi;
  do
  :: atomic{ n>0 && mine==0 && i!=2 && gen<=GENS && (own || used==0) -> n-- }; goto publish
  :: atomic{ n>0 && mine==0 && publ[1] -> n--; g=1 }; goto hold
#if GENS>1
  :: atomic{ n>0 && mine==0 && publ[2] -> n--; g=2 }; goto hold
#endif
  :: atomic{ mine!=0 -> use[i]=0; mine=0; m=i }; goto unhold
  :: own && hint -> goto take_hints
  :: atomic{ n>0 && mine==0 && dirty[(i+1)%NP] && lk[(i+1)%NP]==0 -> n--; m=(i+1)%NP }; goto sweep
  :: atomic{ n>0 && mine==0 && dirty[(i+2)%NP] && lk[(i+2)%NP]==0 -> n--; m=(i+2)%NP }; goto sweep
  :: atomic{ n>0 && mine==0 && !own && used!=0 && wlk==0 -> n-- }; goto reclaim
  :: mine==0 -> break
#if EXITS
  :: break
#endif
  od;
  if :: i==0 && own && z==0 -> z=1; done[0]=1; alone; n=0; goto take_hints
     :: z==1 -> assert(mine!=0 || ph==FREE)
     :: else fi;
  goto dead;

  /* ---------------- descriptor.c */
publish:
  if :: !own ->                                                                /* window.c, take */
        STEP( ok=(used==0 && wlk==0); if :: ok -> wlk=i+1 :: else fi );
        if :: ok -> STEP( ok=(used==0) );
              if :: ok -> STEP( used=1 ); atomic{ assert(blk==0 || blk==OWNED); blk=0; own=1 }
                 :: else -> STEP( wlk=0 ) fi
           :: else fi
     :: else fi;
  if :: own && blk==0 -> skip :: else -> ok=0; goto again fi;
  STEP( blk=OWNED; ok=(ph==FREE && gen<=GENS); if :: ok -> ph=RESV; who=i; moved() :: else -> blk=0 fi );
  if :: ok ->
        ok=0;
        STEP( skip );                                                          /* the row's fields */
        STEP( hb[i]=1 );
        STEP( assert(ph==RESV && who==i); ph=LIVE; who=0; moved(); publ[gen]=1; given=gen; mine=gen; use[i]=gen; blk=gen )
     :: else fi;
  goto again;

hold:                         /* attach by a token of generation g */
  STEP( ok=(ph==LIVE && gen==g) );                                             /* a look before anything is written */
  if :: !ok -> g=0; goto again :: else -> ok=0 fi;
  STEP( hb[i]=1 );
#ifdef BROKEN_NOMOVE
  STEP( if :: ph==LIVE && gen==g -> mine=g :: else fi );
  if :: mine!=0 -> use[i]=g :: else fi;
#else
  STEP( if :: ph==LIVE && gen==g -> moved(); assert(blk==g); mine=g; use[i]=g :: else fi );
#endif
  g=0;
  if :: mine!=0 -> goto again :: else -> m=i fi;
#ifdef BROKEN_NODUTY
  STEP( hb[m]=0 ); goto again;
#endif
unhold:                       /* bit m */
  STEP( hb[m]=0 );
try_free:
#ifdef BROKEN_MARK_FIRST
  STEP( h=high );
#endif
  STEP( lph=ph; lg=gen; mv[i]=0 );
  if :: lph!=LIVE -> goto tried :: else fi;
#ifndef BROKEN_MARK_FIRST
  STEP( h=high );
#endif
  do :: c<h && !f -> STEP( f=hb[c]; c++ ) :: else -> break od;
  if :: f -> goto tried :: else fi;
  if :: LARGE && !own -> c=1 :: LARGE!=1 || own -> c=0 fi;
  STEP( f=!mv[i];
        if :: f -> nobody(lg); freed[lg]++; assert(freed[lg]==1);
                   if :: c==1 -> ph=PUNCH; who=i :: else -> ph=DEAD fi; moved()
           :: else fi );
  if :: !f -> goto tried :: else fi;
  if :: ph==PUNCH && who==i && gen==lg ->
#ifdef BROKEN_PUNCH_LATE
        STEP( assert(ph==PUNCH); ph=DEAD; who=0; moved() );
#endif
        STEP( assert(blk==lg); nobody(lg) );                                   /* the pages go */
#ifndef BROKEN_PUNCH_LATE
        STEP( f=(ph==PUNCH && who==i && gen==lg); if :: f -> ph=DEAD; who=0; moved() :: else fi )
#endif
     :: else fi;
  if :: f && own -> goto give_back
     :: f && !own -> STEP( hint=1 )
     :: else fi;
  goto tried;

take_hints:
  STEP( ok=hint; hint=0 );
  if :: ok -> ok=0 :: else -> goto again fi;
give_back:                    /* DEAD of this process's window -> FREE */
  STEP( mv[i]=0; f=(given!=0 && ph==DEAD && mine==0) );
  if :: f ->
        lg=given; given=0;
        STEP( f=!mv[i]; if :: f -> assert(gen==lg); ret[gen]++; assert(ret[gen]==1); ph=FREE; gen++; moved() :: else fi );
        if :: f -> STEP( assert(blk==lg); nobody(lg); blk=0 ) :: else fi       /* the heap has it */
     :: else fi;
tried:
  atomic{ mv[i]=1; lph=0; lg=0; h=0; f=0; c=0; if :: insweep -> goto swept :: else -> m=0; goto again fi };

  /* ---------------- sweep.c, member.c */
sweep:                        /* place m */
  STEP( ok=(dirty[m] && lk[m]==0);
#ifndef BROKEN_SWEEP_NOLOCK
        if :: ok -> lk[m]=i+1 :: else fi
#endif
        );
  if :: !ok -> m=0; goto again :: else -> ok=0 fi;
#ifndef BROKEN_SWEEP_NOLOCK
  STEP( ok=dirty[m] );
  if :: !ok -> goto unlock :: else -> ok=0 fi;
#endif
sweep_held:                   /* the byte lock of m is held */
  STEP( mv[i]=0; lph=ph; f=(who==m) );
  if :: lph==RESV && f -> STEP( if :: !mv[i] -> ph=FREE; gen++; who=0; moved() :: else fi )
     :: lph==PUNCH && f -> STEP( if :: !mv[i] -> ph=DEAD; who=0; moved() :: else fi )
     :: else fi;
  atomic{ mv[i]=1; lph=0; f=0; insweep=1 };
  STEP( ok=hb[m] );
  if :: ok -> ok=0; assert(m==i || !here[m]); goto unhold :: else -> goto try_free fi;
swept:
  insweep=0;
#ifndef BROKEN_NOHINT
  STEP( ok=(ph==DEAD) );
  if :: ok -> ok=0; STEP( hint=1 ) :: else fi;
#endif
  STEP( dirty[m]=0 );
  if :: joining -> m=0; goto joined :: else fi;
unlock:
#ifndef BROKEN_SWEEP_NOLOCK
  STEP( lk[m]=0; m=0 );
#endif
  m=0; goto again;
newcomer:                     /* a new process takes the place */
  atomic{ lk[i]==0 -> lk[i]=i+1; assert(!here[i]); here[i]=1 };
  STEP( ok=dirty[i] );
#ifndef BROKEN_ADOPT
  if :: ok -> atomic{ ok=0; joining=1; m=i }; goto sweep_held :: else fi;
#endif
joined:
  atomic{ joining=0; ok=0 };
  STEP( if :: high<=i -> high=i+1 :: else fi );
  STEP( assert(!hb[i] && !((ph==RESV || ph==PUNCH) && who==i)); dirty[i]=1 );
  goto again;

  /* ---------------- window.c: a window without an owner */
reclaim:
  STEP( ok=(!own && used!=0 && wlk==0); if :: ok -> wlk=i+1 :: else fi );
  if :: !ok -> goto again :: else -> ok=0 fi;
  STEP( h=used );
  if :: h==2 -> STEP( if :: hint -> h=1 :: else fi ) :: else fi;
  if :: h==1 ->
        STEP( used=1 );
        STEP( hint=0 );
        STEP( lph=ph; mv[i]=0; h=(ph!=FREE && ph!=RESV && ph!=DEAD) );         /* free_dead: held */
        if :: lph==DEAD -> STEP( if :: !mv[i] -> ret[gen]++; assert(ret[gen]==1); ph=FREE; gen++; moved() :: else fi ) :: else fi;
        atomic{ mv[i]=1; lph=0 };
        if :: h!=0 -> STEP( f=(ph!=FREE && ph!=RESV) ) :: else fi;             /* cover */
        if :: !f -> STEP( if :: blk!=0 && blk!=OWNED -> nobody(blk) :: else fi; blk=0 ) :: else fi;   /* punch_gaps */
        STEP( used=(h==0 -> 0 : 2) );
        f=0
     :: else fi;
  h=0;
  STEP( wlk=0 );
  goto again;

survivor:                     /* process 0 may be alive still, with its window: first the others */
  z++;
  if
  :: z==1 -> done[0] && done[1] && done[2]; assert(EXITS || ncrash<MAXC || ph!=LIVE); m=1; goto sweep
  :: z==2 || z==5 -> m=2; goto sweep
  :: z==3 -> alone=1; lk[0]==0; m=0; goto sweep
  :: z==4 -> m=1; goto sweep
  :: z==6 -> goto reclaim
  :: z==7 -> atomic{
       assert(ph==FREE && used==0 && blk==0);
       k=0; do :: k<NP -> assert(!hb[k] && !dirty[k] && lk[k]==0); k++ :: else -> break od;
       k=1; do :: k<=GENS -> assert(freed[k]==publ[k] && ret[k]==publ[k]); k++ :: else -> break od; k=0; goto end }
  fi;

dead:                         /* killed, or at its end */
  atomic{ use[i]=0; here[i]=0; mine=0; given=0; own=0; lph=0; lg=0; h=0; c=0; k=0; m=0; g=0; z=0; f=0; ok=0; insweep=0; joining=0; mv[i]=1;
    k=0; do :: k<NP -> if :: lk[k]==i+1 -> lk[k]=0 :: else fi; k++ :: else -> break od; k=0;
    if :: wlk==i+1 -> wlk=0 :: else fi;
    if :: nrejoin>0 && n>0 && !alone -> nrejoin--; goto newcomer :: else -> n=0; done[i]=1 fi };
end: skip
}
init { atomic{ high=2; dirty[0]=1; dirty[1]=1; lk[0]=1; lk[1]=2; here[0]=1; here[1]=1;
  if :: LATE -> skip :: else -> high=3; dirty[2]=1; lk[2]=3; here[2]=1 fi;
  run Proc(0); run Proc(1); run Proc(2); run Proc(NP) } }
