/* ticket.pml: pickles under way between processes, when any process may be killed before any step.
 *
 * Stands for shm/ticket.c, the table of shm/lease.c and the part of shm/sweep.c that looks at tickets. Process 0 makes segments and pickles
 * (one thread: lease.c's mutex makes its steps one), processes 1 and 2 load them and sweep, S survives. One row of the table of
 * descriptors, used again; NT rows of tickets. What hold.pml shows of descriptors is taken as one step here: holding, and letting go with
 * the attempt to free. Every access to a ticket's word or fields is a step, and before each a process may be killed. Time passes at any
 * moment: `now` becomes 1, and then the deadlines of all pickles made at 0 have passed; at 2 all have.
 * Default search: an invalid end state is a deadlock and an error.
 *
 * Checked, in every interleaving (T, L: the invariants of shm/README.md):
 *   a LIVE ticket's process has its bit in the ticket's segment, which lives (T1);
 *   a pickle that is neither struck nor run out can be loaded, also when its maker is dead;
 *   a number is struck once, by its own pickle; a row ends once (L2);
 *   a new process takes a dead one's place only when nothing of that is left;
 *   the maker hears of every pickle that others have loaded, and lets go of it. Of one whose loader is killed between striking and telling
 *   it hears from that one's sweep, which tells everybody; that step isn't here, as the only sweep of a loader comes at the end;
 *   after the deadlines and one sweep nothing is left: tickets, bits, segment, places (D3).
 *
 * run.sh takes the following from here; see there.
 *   pan    -DVECTORSZ=2048 -m200000
 *   sound  calm                 994899  -DMAXC=0 -DOPS2=0
 *   sound  kill                1348096  -DOPS1=1 -DNQ=1
 *   sound  kill_pickles        1644753  -DOPS2=0
 *   larger kill_rows           1412135  -DOPS2=0 -DOPS1=1 -DNT=2
 *   sound  rejoin               797979  -DREJOIN=1 -DOPS2=0 -DNQ=1
 *   sound  kill2               1573630  -DMAXC=2 -DOPS1=1 -DNQ=1
 *   larger calm_full           6690986  -DMAXC=0
 * Broken on purpose, -DBROKEN_ and the first word; the assertion that catches it contains the second:
 *   broken STRIKE_FIRST  kst[q]!=1      -DOPS2=0
 *   broken STRIKE_STORE  v==(q+1)       -DNQ=1
 *   broken NOSEQ         v==(q+1)       -DOPS2=0
 *   broken ESTATE        tm[v]==m       -DNQ=1
 *   broken DROP_LATE     tm[v]==0       -DOPS2=0
 *   broken ADOPT         hb[i]          -DREJOIN=1 -DOPS2=0 -DNQ=1
 *   broken NOTELL        tk[k]          -DMAXC=0 -DNQ=1
 *   broken RESV_LEFT     ts[k]==0       -DNQ=1
 *   broken MARK_LATE     tm[v]==m       -DNQ=1
 *
 * NOT here: weak memory (litmus/), the inside of hold and try_free (hold.pml), the end of a lease when it isn't shared (count.pml), the
 * bound on leases (it ends them as expiry does), forged numbers, a doorbell that nobody hears, several segments at a time.
 */
#ifndef MAXC
#define MAXC 1            /* kills, at most */
#endif
#ifndef REJOIN
#define REJOIN 0          /* new processes that take place 0, at most */
#endif
#ifndef OPS0
#define OPS0 4            /* operations of each process; letting go not counted */
#endif
#ifndef OPS1
#define OPS1 2
#endif
#ifndef OPS2
#define OPS2 1
#endif
#ifndef NQ
#define NQ 2              /* pickles */
#endif
#ifndef NT
#define NT 1              /* rows of tickets */
#endif
#ifndef GENS
#define GENS 2            /* segments */
#endif
#define NP 3              /* processes; the survivor is NP */
#define FREE 0
#define RESV 1
#define LIVE 2
/* ---- shared */
byte gen; bool live;                 /* the descriptor: which segment, and whether it lives */
bool hb[NP+1], dirty[NP]; byte lk[NP], struck[NP];
byte ts[NT+1], tq[NT+1], tm[NT+1];   /* a ticket's word: state, sequence, member (one word) */
byte td[NT+1], tl[NT+1];             /* its fields: segment, deadline */
byte high, now;                      /* mark of tickets; the clock */
/* ---- private to process 0 */
bool tk[NQ], le; byte seen;          /* tickets in its table; its lease */
/* ---- the pickles: row, sequence, segment. kst: 0 not made, 1 under way, 2 struck, 3 run out or gone with its maker */
byte nr[NQ], nq[NQ], ng[NQ], kst[NQ];
/* ---- ghosts */
byte use[NP]; bool done[NP], fin; byte ncrash=MAXC, nrejoin=REJOIN;

#if MAXC==0
#define STEP(x) atomic{ x }
#else
#define STEP(x) if :: d_step{ x } :: atomic{ i<NP && ncrash>0 -> ncrash--; goto dead } fi
#endif

/* bit m goes, and the segment with the last one: hold.pml */
inline let_go(m) {
  v=0; do :: v<NT -> assert(!(ts[v]==LIVE && tm[v]==m && td[v]==gen)); v++ :: else -> break od; v=0;
  hb[m]=0;
  if :: !hb[0] && !hb[1] && !hb[2] && !hb[3] && live -> assert(use[0]!=gen && use[1]!=gen && use[2]!=gen); live=0 :: else fi
}
/* row t ends, if its word is what was read (sequence w, member o, state x); f: it did. v: its pickle + 1 */
inline end(to) {
  f=(ts[t]==x && tq[t]==w && tm[t]==o);
  if :: f -> v=0; do :: v<NQ && !(kst[v]==1 && nr[v]==t && nq[v]==w) -> v++ :: else -> break od;
             if :: v<NQ -> kst[v]=to; v++ :: else -> v=0 fi;
             ts[t]=FREE; tm[t]=0;
#ifndef BROKEN_NOSEQ
             tq[t]=w+1
#endif
     :: else fi
}

proctype Proc(byte i) {
  byte n, z, m, q, t, w, o, x, v, k, left; bool f, mine, joining, sf;
  n=(i==0 -> OPS0 : (i==1 -> OPS1 : (i==2 -> OPS2 : 0)));
again:
  if :: i==NP -> goto survivor :: else fi;
  do
  :: atomic{ i==0 && n>0 && !mine && !le && !live && gen<GENS -> n--; gen++; live=1; hb[0]=1; mine=1; use[0]=gen }
  :: atomic{ i==0 && n>0 && mine && kst[0]==0 -> n--; q=0 }; goto take
  :: atomic{ n>0 && !mine && kst[0]!=0 -> n--; q=0 }; goto load
#if NQ>1
  :: atomic{ i==0 && n>0 && mine && kst[0]!=0 && kst[1]==0 -> n--; q=1 }; goto take
  :: atomic{ n>0 && !mine && kst[1]!=0 -> n--; q=1 }; goto load
#endif
  :: atomic{ mine -> mine=0; use[i]=0 }; goto release
  :: i==0 && seen!=struck[0] -> goto poll
  :: atomic{ i==0 && tk[0] && now>=1 -> q=0 }; goto expire
#if NQ>1
  :: atomic{ i==0 && tk[1] && now>=1 -> q=1 }; goto expire
#endif
  :: atomic{ i!=0 && n>0 && !mine && dirty[0] && lk[0]==0 -> n--; m=0 }; goto sweep
  :: !mine && (z==0 || seen==struck[0]) -> break
  od;
  if :: i==0 && z==0 -> done[0]=1; n=0; z=1; fin; goto again
     :: else fi;
  k=0; do :: i==0 && k<NQ -> assert(!tk[k] || kst[k]==1 || ncrash<MAXC); k++ :: else -> break od; k=0;
  goto dead;

  /* ---------------- lease.c: process 0 */
take:                         /* pickle q of the segment it has */
  t=0; le=1;                                                                   /* the lease's own reference */
  do
  :: t<NT ->
#ifndef BROKEN_MARK_LATE
     if :: t>=high -> STEP( high=t+1 ) :: else fi;
#endif
     STEP( f=(ts[t]==FREE); w=tq[t] );
     if :: f -> STEP( f=(ts[t]==FREE && tq[t]==w); if :: f -> ts[t]=RESV; tm[t]=0 :: else fi ) :: else fi;
     if :: f -> break :: else -> t++ fi
  :: else -> break
  od;
  if :: f ->
        f=0;
        STEP( td[t]=gen );
        STEP( tl[t]=now+1 );
        STEP( assert(ts[t]==RESV && hb[0] && live); ts[t]=LIVE; tk[q]=1; kst[q]=1; nr[q]=t; nq[q]=w; ng[q]=gen );
#ifdef BROKEN_MARK_LATE
        STEP( if :: high<=t -> high=t+1 :: else fi );
#endif
     :: else fi;
  w=0; t=0; q=0;
  goto unlease;
poll:                         /* what others have struck out */
  STEP( seen=struck[0] );
  do :: q<NQ -> if :: tk[q] -> STEP( if :: !(ts[nr[q]]==LIVE && tq[nr[q]]==nq[q]) -> tk[q]=0 :: else fi ) :: else fi; q++
     :: else -> break od;
  q=0; goto unlease;
expire:
#ifdef BROKEN_DROP_LATE
  if :: tk[0] && NQ>1 && tk[NQ-1] -> skip :: else -> STEP( le=0; if :: !mine && hb[0] -> let_go(0) :: else fi ) fi;
#endif
  t=nr[q];
  STEP( w=tq[t]; o=tm[t]; x=ts[t]; f=(x==LIVE && w==nq[q] && o==0) );
  if :: f -> STEP( end(3) ) :: else fi;
  atomic{ tk[q]=0; f=0; t=0; w=0; o=0; x=0; v=0; q=0 };
unlease:                      /* a lease without tickets goes, then its reference */
  if :: tk[0] || (NQ>1 && tk[NQ-1]) -> goto again :: else -> le=0 fi;
release:
  if :: i==0 && (mine || le || !hb[0]) -> goto again :: else fi;
  STEP( let_go(i) );
  goto again;

  /* ---------------- ist_lease_load */
load:
#ifdef BROKEN_STRIKE_FIRST
  goto strike;
#endif
hold:
  STEP( f=(live && gen==ng[q]); if :: f -> hb[i]=1; mine=1; use[i]=gen :: else -> assert(kst[q]!=1 && !sf) fi );
  if :: !f -> q=0; goto again :: else -> f=0 fi;
#ifdef BROKEN_STRIKE_FIRST
  q=0; sf=0; goto again;
#endif
strike:
  t=nr[q];
  STEP( w=tq[t]; o=tm[t]; x=ts[t]; f=(x==LIVE && w==nq[q]) );
  if :: f -> STEP( f=(td[t]==ng[q]) ) :: else fi;
#ifdef BROKEN_STRIKE_STORE
  if :: f -> STEP( x=ts[t]; w=tq[t]; o=tm[t]; end(2); assert(v==q+1) ) :: else fi;
#else
  if :: f -> STEP( end(2); if :: f -> assert(v==q+1) :: else fi ) :: else fi;
#endif
#ifdef BROKEN_STRIKE_FIRST
  sf=f;                                                                        /* and then it must get the data */
#endif
  if :: f && o==i -> tk[q]=0                                                   /* our own */
#ifndef BROKEN_NOTELL
     :: f && o!=i -> STEP( struck[o]++ )
#endif
     :: else fi;
  atomic{ x=f && o==i && i==0; f=0; t=0; w=0; o=0; v=0 };
#ifdef BROKEN_STRIKE_FIRST
  x=0; goto hold;
#endif
  q=0;
  if :: x -> x=0; goto unlease :: else -> x=0; goto again fi;

  /* ---------------- sweep.c: place m */
sweep:
  STEP( f=(dirty[m] && lk[m]==0); if :: f -> lk[m]=i+1 :: else fi );
  if :: !f -> m=0; goto again :: else -> f=0 fi;
  STEP( f=dirty[m] );
  if :: !f -> goto unlock :: else -> f=0 fi;
sweep_held:
  STEP( k=high );
  do
  :: t<k ->
     STEP( w=tq[t]; o=tm[t]; x=ts[t] );
     if :: o==m && x!=FREE ->
           f=(x!=LIVE);
#ifdef BROKEN_RESV_LEFT
           f=0; if :: x!=LIVE -> goto next :: else fi;
#endif
           if :: !f -> STEP( f=(tl[t]<=now) ) :: else fi;
           if :: f -> STEP( end(3) ) :: else -> left++ fi
        :: else fi;
#ifdef BROKEN_RESV_LEFT
next:
#endif
     atomic{ t++; w=0; o=0; x=0; f=0; v=0 }
  :: else -> break
  od;
  t=0; k=0;
#ifdef BROKEN_ESTATE
  STEP( if :: hb[m] -> let_go(m) :: else fi );
#else
  if :: left==0 -> STEP( if :: hb[m] -> let_go(m) :: else fi ) :: else fi;
#endif
  if :: left==0 -> STEP( dirty[m]=0 ) :: else fi;
  if :: joining -> goto joined :: else fi;
unlock:
  STEP( lk[m]=0 );
  atomic{ m=0; left=0; f=0; goto again };
newcomer:                     /* a new process takes place 0, if nothing of the one before is left */
  atomic{ lk[0]==0 -> lk[0]=1 };
  STEP( f=dirty[0] );
  if :: f -> f=0; m=0; joining=1; goto sweep_held :: else fi;
joined:
#ifndef BROKEN_ADOPT
  if :: left!=0 -> left=0; n=0; goto dead :: else fi;
#endif
  atomic{ joining=0; f=0; left=0 };
  STEP( assert(!hb[i]); dirty[0]=1; seen=struck[0] );
  goto again;

survivor:
  z++;
  if
  :: z==1 -> atomic{ done[0] && done[1] && done[2]; fin=1 }; lk[0]==0; now=2; m=0; goto sweep
  :: z==2 || z==3 -> m=z-1; lk[m]==0; goto sweep
  :: z==4 -> atomic{
       k=0; do :: k<NT -> assert(ts[k]==0); k++ :: else -> break od;
       k=0; do :: k<NQ -> assert(kst[k]!=1); k++ :: else -> break od;
       assert(!live && !hb[0] && !hb[1] && !hb[2]);
       k=0; do :: k<NP -> assert(!dirty[k]); k++ :: else -> break od; k=0; goto over }
  fi;

dead:                         /* killed, or at its end */
  atomic{ use[i]=0; mine=0; m=0; q=0; t=0; w=0; o=0; x=0; v=0; k=0; left=0; z=0; f=0; sf=0; joining=0;
    k=0; do :: k<NP -> if :: lk[k]==i+1 -> lk[k]=0 :: else fi; k++ :: else -> break od; k=0;
    if :: i==0 -> le=0; seen=0; k=0; do :: k<NQ -> tk[k]=0; k++ :: else -> break od; k=0 :: else fi;
    if :: nrejoin>0 && n>0 && i==0 && !fin -> nrejoin--; goto newcomer :: else -> n=0; done[i]=1 fi };
over: skip
}
proctype Clock() { if :: atomic{ now==0 -> now=1 } :: fin fi }
init { atomic{ dirty[0]=1; dirty[1]=1; dirty[2]=1; lk[0]=1; lk[1]=2; lk[2]=3;
  run Proc(0); run Proc(1); run Proc(2); run Proc(NP); run Clock() } }
