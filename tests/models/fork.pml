/* fork.pml: the hand-over of what a process holds to its forked child, when parent, child or another process may be killed at any step.
 *
 * Stands for hand_over and the fork handlers of shm/domain.c, for isti_segment_fork_publish (shm/segment.c) and for what others do to the
 * same descriptor meanwhile (shm/descriptor.c, shm/sweep.c). One segment. Member 1 is the parent, with the thread F that forks and a thread
 * T that lets go of its reference at any time; member 0 is the place that the child gets; process 2 attaches, lets go and sweeps; S
 * survives.
 * A kill is a step of its own that ends all threads of a process. The place's byte lock lives as long as a mapping of it, in the parent or
 * in the child. The sequence number is abstracted exactly as in hold.pml.
 * Default search: an invalid end state is a deadlock and an error.
 *
 * Checked, in every interleaving (D, F: the invariants of shm/README.md):
 *   the segment dies only when nobody uses it, and once; it isn't published when it is gone already (D1);
 *   the child owns what its parent owned, from its first moment on: the segment lives, its bit is set iff its table says so (D2, F2);
 *   the bits of the living are never touched (D4);
 *   after one sweep by the survivor nothing is left: RESV, bits, places (D3).
 *
 * run.sh takes the following from here; see there.
 *   pan    -DVECTORSZ=2048 -m200000
 *   sound  published           1846181
 *   sound  published_thread    2529167  -DFREF=0
 *   larger unpublished         2317260  -DPUB=0
 *   sound  unpublished_thread  2182537  -DPUB=0 -DFREF=0
 *   sound  calm                 274917  -DMAXC=0 -DOPS2=2
 *   larger published_full      4180119  -DOPS2=2
 *   larger unpublished_full    5219688  -DOPS2=2 -DPUB=0
 * Broken on purpose, -DBROKEN_ and the first word; the assertion that catches it contains the second:
 *   broken NOMOVE        use[0]==0
 *   broken BIT_LATE      use[0]==0
 *   broken DROP_FIRST    use[0]==0
 *   broken DIRTY_LATE    ph!=2
 *   broken NOPIN         alive          -DPUB=0 -DFREF=0
 *   broken NOFORGET      hb[0]==cent    -DFREF=0
 *   broken NOLOCK        hb[0]==cent    -DFREF=0
 *
 * NOT here: several segments and domains ("all or nothing"), a place that isn't clean, a second fork, threads of the parent that make
 * segments meanwhile, heap and thread caches, leases (the child throws its copy away: private), the child of a raw clone.
 */
#ifndef MAXC
#define MAXC 1            /* kills, at most */
#endif
#ifndef PUB
#define PUB 1             /* 0: the segment isn't published before the fork */
#endif
#ifndef FREF
#define FREF 1            /* 0: only the thread T owns a reference */
#endif
#ifndef OPS2
#define OPS2 1            /* operations of process 2, letting go not counted */
#endif
#define S 3
#define T 4
#define FREE 0
#define RESV 1
#define LIVE 2
#define DEAD 4
/* ---- shared: the descriptor's S, its bits; members */
byte ph=FREE, who; bool hb[3], dirty[3];
byte swl[3];                         /* byte lock: the sweeper that has it, + 1 */
bool ancP, ancC;                     /* mappings that keep the byte lock of place 0: the parent's, the child's */
bool mv[5]=1;
/* ---- private to the parent, and the child's copy */
byte ow, sl; bool ent, desc; byte cow; bool cent;
/* ---- ghosts */
bool alive=1, gone, dead[4], done[5], forked, born, pinned, cpinned; byte use[4];   /* use: the child, F, process 2, T */
byte ncrash=MAXC;

#define moved() mv[0]=1; mv[1]=1; mv[2]=1; mv[3]=1; mv[4]=1
#define me (i==T -> 1 : i)
#define lives(m) (m==0 -> (ancP || ancC) : !dead[m])
#define nobody() assert(use[0]==0 && use[1]==0 && use[2]==0 && use[3]==0)
#if MAXC==0
#define STEP(x) atomic{ x }
#else
#define STEP(x) if :: atomic{ !dead[me] -> x } :: atomic{ dead[me] -> goto over } fi
#endif

proctype Proc(byte i) {       /* 0 the child, 1 F, 2 the other process, 3 the survivor, 4 T */
  byte n, z, m; bool f, last, insweep, ready;
  if :: i==0 -> goto endunborn
     :: i==1 -> goto prepare
     :: i==T -> n=1; goto release
     :: i==2 -> n=OPS2
     :: i==S
  fi;
again:
  if :: i==S -> goto survivor
     :: i==1 || i==T -> goto parent
     :: i==0 -> goto over
     :: else fi;
  do
  :: atomic{ n>0 && use[2]==0 && (desc || PUB) -> n-- }; goto hold
  :: atomic{ use[2]!=0 -> use[2]=0; m=2 }; goto unhold
  :: atomic{ n>0 && use[2]==0 && dirty[1] && !lives(1) -> n--; m=1 }; goto sweep
  :: atomic{ n>0 && use[2]==0 && dirty[0] && !lives(0) -> n--; m=0 }; goto sweep
  :: use[2]==0 -> goto over
  :: atomic{ dead[2] -> goto over }
  od;

  /* ---------------- the parent, thread F */
prepare:
#ifndef BROKEN_NOLOCK
  if :: atomic{ !dead[1] && sl==0 -> sl=i+1 } :: atomic{ dead[1] -> goto over } fi;     /* all publish and stripe locks */
#endif
  STEP( f=(ow!=0 && !desc) );                                                  /* isti_segment_fork_publish */
  if :: f ->
#ifndef BROKEN_NOPIN
        STEP( f=(ow!=0); if :: f -> ow++; pinned=1 :: else fi );
#endif
        if :: f ->
              STEP( assert(ph==FREE); ph=RESV; who=1; moved() );
              STEP( hb[1]=1 );
              STEP( assert(ph==RESV && who==1 && alive); ph=LIVE; who=0; moved(); ent=1 );
              STEP( desc=1 )
           :: else fi
     :: else fi;
  f=0;
#ifdef BROKEN_DIRTY_LATE
  STEP( ready=(!dirty[0] && swl[0]==0); if :: ready -> ancP=1 :: else fi );
#else
  STEP( ready=(!dirty[0] && swl[0]==0); if :: ready -> ancP=1 :: else fi );    /* hand_over */
  if :: ready -> STEP( ready=!dirty[0]; if :: !ready -> ancP=0 :: else fi ) :: else fi;
  if :: ready -> STEP( dirty[0]=1 ) :: else fi;
#endif
#ifndef BROKEN_BIT_LATE
  STEP( f=(ready && ent && ow!=0) );
  if :: f ->
        STEP( hb[0]=1 );
#ifndef BROKEN_NOMOVE
        STEP( if :: ph==LIVE -> moved() :: else fi );
#endif
     :: else fi;
#endif
#ifdef BROKEN_DIRTY_LATE
  STEP( dirty[0]=1 );
#endif
#ifdef BROKEN_DROP_FIRST
  STEP( ancP=0 );
#endif
  STEP( forked=1;                                                              /* fork */
        if :: ready -> born=1; cow=ow; cent=ent; cpinned=pinned; use[0]=(cow!=0);
#ifndef BROKEN_DROP_FIRST
                       ancC=1
#endif
           :: skip                                                             /* it fails */
        fi );
  STEP( ancP=0 );
#ifndef BROKEN_NOLOCK
  STEP( assert(sl==i+1); sl=0 );
#endif
  atomic{ f=0; ready=0; n=FREF+pinned; pinned=0 };
parent:
  if :: n>0 -> skip :: else -> goto over fi;
release:                      /* one reference of the parent's */
  STEP( if :: i==T -> use[3]=0 :: i==1 && n==1 && FREF -> use[1]=0 :: else fi;
        n--; assert(ow>0); ow--; last=(ow==0) );
  if :: !last -> goto again :: else -> last=0 fi;
  STEP( f=desc );
  if :: !f -> STEP( nobody(); assert(alive); alive=0 ); goto again :: else -> f=0 fi;
  if :: atomic{ !dead[1] && sl==0 -> sl=i+1 } :: atomic{ dead[1] -> goto over } fi;
  STEP( assert(ent); ent=0 );
  STEP( hb[1]=0 );
  STEP( sl=0 );
  goto try_free;

  /* ---------------- the child */
endunborn:                    /* perhaps it never is */
  born;
#ifdef BROKEN_DROP_FIRST
  STEP( ancC=1 );
#endif
#ifdef BROKEN_BIT_LATE
  if :: cent && cow!=0 -> STEP( hb[0]=1 ); STEP( if :: ph==LIVE -> moved() :: else fi ) :: else fi;
#endif
#ifndef BROKEN_NOFORGET
  if :: cent && cow==0 -> cent=0; n=1; m=0; goto unhold :: else fi;            /* forget_ended */
#endif
started:
  STEP( assert(hb[0]==cent && (!cent || (ph==LIVE && alive && cow!=0))) );
  if :: cpinned -> cow--; cpinned=0 :: else fi;
  if :: cent -> skip :: else -> goto over fi;
  if :: STEP( use[0]=0; cow=0; cent=0 ); m=0; goto unhold                      /* lets go of all it has */
     :: goto over                                                              /* or ends with it */
  fi;

  /* ---------------- descriptor.c */
hold:
  STEP( f=(ph==LIVE) );
  if :: !f -> goto again :: else -> f=0 fi;
  STEP( hb[2]=1 );
  STEP( f=(ph==LIVE); if :: f -> moved(); assert(alive); use[2]=1 :: else fi );
  if :: f -> f=0; goto again :: else -> m=2 fi;
unhold:
  STEP( hb[m]=0 );
try_free:
  STEP( f=(ph==LIVE); mv[i]=0 );
  if :: !f -> goto tried :: else fi;
  STEP( f=!hb[0] ); if :: !f -> goto tried :: else fi;
  STEP( f=!hb[1] ); if :: !f -> goto tried :: else fi;
  STEP( f=!hb[2] ); if :: !f -> goto tried :: else fi;
  STEP( if :: !mv[i] -> nobody(); assert(!gone && alive); gone=1; alive=0; ph=DEAD; moved() :: else fi );
tried:
  atomic{ mv[i]=1; f=0; if :: insweep -> goto swept :: i==0 && n==1 -> n=0; goto started :: else -> m=0; goto again fi };

  /* ---------------- sweep.c: place m */
sweep:
  STEP( f=(dirty[m] && !lives(m) && swl[m]==0); if :: f -> swl[m]=i+1 :: else fi );
  if :: !f -> m=0; goto again :: else -> f=0 fi;
  STEP( f=dirty[m] );
  if :: !f -> goto unlock :: else -> f=0 fi;
  STEP( if :: ph==RESV && who==m -> ph=FREE; who=0; moved() :: else fi );
  insweep=1;
  STEP( f=hb[m] );
  if :: f -> f=0; assert(!lives(m)); goto unhold :: else -> goto try_free fi;
swept:
  insweep=0;
  STEP( dirty[m]=0 );
unlock:
  STEP( swl[m]=0 );
  atomic{ m=0; f=0; goto again };
survivor:
  z++;
  if
  :: z==1 -> done[1] && done[2] && done[T] && (done[0] || !born); dead[0]=1; dead[1]=1; dead[2]=1;
             ancP=0; ancC=0; swl[0]=0; swl[1]=0; swl[2]=0; m=0; goto sweep
  :: z==2 || z==3 -> m=z-1; goto sweep
  :: z==4 -> atomic{ assert(ph!=LIVE && ph!=RESV); assert(!hb[0] && !hb[1] && !hb[2]);
                     assert(!dirty[0] && !dirty[1] && !dirty[2]); goto end }
  fi;
over:
  atomic{ n=0; z=0; m=0; f=0; last=0; insweep=0; ready=0; mv[i]=1; done[i]=1; 
    if :: i==0 -> dead[0]=1; ancC=0; use[0]=0 :: i==2 -> dead[2]=1 :: (i==1 || i==T) && done[1] && done[T] -> dead[1]=1; ancP=0
       :: else fi };
end: skip
}
#if MAXC>0
proctype Kill() {
  do
  :: atomic{ ncrash>0 && !dead[1] && !done[S] -> ncrash--; dead[1]=1; ancP=0; use[1]=0; use[3]=0; sl=0;
             if :: !gone && ph!=LIVE -> alive=0 :: else fi }
  :: atomic{ ncrash>0 && born && !dead[0] -> ncrash--; dead[0]=1; ancC=0; use[0]=0; if :: swl[1]==1 -> swl[1]=0 :: else fi }
  :: atomic{ ncrash>0 && !dead[2] -> ncrash--; dead[2]=1; use[2]=0;
             if :: swl[0]==3 -> swl[0]=0 :: else fi; if :: swl[1]==3 -> swl[1]=0 :: else fi }
  :: break
  od
}
#endif
init { atomic{ dirty[1]=1; dirty[2]=1; ow=1+FREF; use[1]=FREF; use[3]=1;
  if :: PUB -> ph=LIVE; hb[1]=1; ent=1; desc=1 :: else fi;
  run Proc(0); run Proc(1); run Proc(2); run Proc(S); run Proc(T);
#if MAXC>0
  run Kill()
#endif
  } }
