/* waiter.pml: wait and notify on an element of an array, when any process may be killed before any step.
 *
 * Stands for shm/waiter.c. NW processes wait, NN notify, S survives, sweeps the dead and notifies everybody at the end. NS rows of the
 * table of waiters, which stand for one bucket; two elements (keys). Every access to a row's word or key is a step, so is every access to
 * an element, and before each a process may be killed. A waiter may time out, or be interrupted, at any moment while it sleeps.
 * Default search: an invalid end state (somebody sleeps for ever) is an error.
 *
 * Checked, in every interleaving (W: the invariants of shm/README.md):
 *   whoever finds the element changed doesn't sleep on: after the element's store and a notification of all, every waiter returns (W1);
 *   a notification goes to one waiter, that waits on that element and is asleep or about to be; who returns "not-equal" or "timed-out" has
 *   taken none (W2);
 *   of those that waited before a notification began, the one that came first is woken first (W3);
 *   a notification that a killed or interrupted waiter hadn't heard yet goes to the next (W4);
 *   in the end no row is taken (W5).
 * ASYNC: process 0 waits without sleeping (W6). Behind its move to WAITING it puts itself into its list and looks at its row once more; then it waits for
 *   its descriptor. A notifier of its own process looks through the list itself, any other rings the doorbell, and the housekeeper looks; also
 *   every two seconds, as a notifier may die before it rings.
 *
 * run.sh takes the following from here; see there.
 *   pan    -DVECTORSZ=2048 -m200000
 *   sound  calm            734934  -DMAXC=0 -DNN=1
 *   sound  asleep          391417  -DMAXC=0 -DNN=1 -DOPS=2 -DGIVEUP=0
 *   sound  kill           3421152  -DNN=1 -DGIVEUP=0
 *   sound  keys            652340  -DMAXC=0 -DNS=1 -DNK=2 -DNN=1
 *   sound  async           6377483  -DASYNC=1 -DMAXC=0 -DNN=1
 *   larger calm2                0  -DMAXC=0 -DNN=1 -DOPS=2
 *   larger asleep2              0  -DMAXC=0 -DGIVEUP=0
 *   larger async_kill     22313500  -DASYNC=1 -DNN=1 -DGIVEUP=0
 *   larger kill_gives_up        0  -DNN=1
 * Broken on purpose, -DBROKEN_ and the first word; the assertion that catches it contains the second:
 *   broken NORECHECK       over[x]     -DMAXC=0 -DGIVEUP=0 -DNN=1
 *   broken CHECK_FIRST     over[x]     -DMAXC=0 -DGIVEUP=0 -DNN=1
 *   broken NOTICKET        key[s]==    -DMAXC=0 -DNS=1 -DNK=2 -DNN=1
 *   broken ANYORDER        was[x]      -DMAXC=0 -DNN=1 -DGIVEUP=0
 *   broken SWEEP_DROPS     n==1        -DNN=1 -DGIVEUP=0
 *   broken INTERRUPT_DROPS n==1        -DMAXC=0 -DNN=1
 *   broken NOLOOK          over[x]     -DASYNC=1 -DMAXC=0 -DNN=1 -DGIVEUP=0
 *   broken NOBACKSTOP      over[x]     -DASYNC=1 -DNN=1 -DGIVEUP=0
 *   broken BELL_LATE       over[x]     -DASYNC=1 -DMAXC=0 -DNN=2 -DGIVEUP=0 -DOPS=2
 *
 * NOT here: weak memory (litmus/waiter_*), several buckets, a table that is full, the reference that a waiter has.
 */
#ifndef MAXC
#define MAXC 1            /* kills, at most */
#endif
#ifndef NW
#define NW 2              /* processes that wait */
#endif
#ifndef NN
#define NN 2              /* processes that notify */
#endif
#ifdef BROKEN_SWEEP_DROPS
#define SWEEP_DROPS true
#else
#define SWEEP_DROPS false
#endif
#ifdef BROKEN_INTERRUPT_DROPS
#define INTERRUPT_DROPS true
#else
#define INTERRUPT_DROPS false
#endif
#ifndef NS
#define NS 2              /* rows */
#endif
#ifndef GIVEUP
#define GIVEUP 1          /* a wait may end by itself */
#endif
#ifndef NK
#define NK 1              /* elements */
#endif
#ifndef OPS
#define OPS 1             /* waits of process 0; the others wait once */
#endif
#ifndef ASYNC
#define ASYNC 0           /* process 0 waits for its descriptor */
#endif
#define NP (NW+NN)        /* the survivor is NP */
#define FREE 0
#define CLAIMED 1         /* its key is being written */
#define PENDING 2         /* about to look at the element */
#define RECHECK 3         /* was notified while PENDING: looks once more */
#define WAITING 4
#define NOTIFIED 5
/* ---- shared */
byte st[NS+1], tk[NS+1], mb[NS+1]; /* a row's word: state, ticket, member (one word) */
byte key[NS];
byte ticket=1;
bit val[2];
bool bell, fd, listed;    /* process 0's doorbell, descriptor; whether its wait is in its list, and which that is: */
byte lrow, lticket;
/* ---- ghosts */
byte owed;                /* notifications given to a row and not yet heard */
bool gone[NP], over[NP];  /* killed; done */
byte ncrash=MAXC;

#if MAXC==0
#define STEP(x) atomic{ x }
#else
#define STEP(x) if :: d_step{ x } :: atomic{ i<NP && ncrash>0 -> ncrash--; goto dead } fi
#endif

#if ASYNC
/* Its row isn't asleep any more: its descriptor becomes readable. */
#define TELL if :: listed && !(st[lrow]==WAITING && tk[lrow]==lticket) -> fd=1 :: else fi
#endif

/* notify(k): up to c of those that wait on k; n: how many. Uses s, w, o, f, x, cand[], was[] */
inline notify(k, c) {
  n=0; s=0;
  d_step{ x=0; do :: x<NS -> was[x]=(st[x]==WAITING && key[x]==k -> tk[x] : 0); x++ :: else -> break od; x=0 }
  do
  :: s<NS ->
     STEP( w=st[s]; o=tk[s] );
     f=0;
     if :: w==PENDING || w==WAITING -> STEP( f=(key[s]==k) ) :: else fi;
     if
     :: f && w==PENDING ->
#ifdef BROKEN_NORECHECK
        f=0
#else
        STEP( f=(st[s]==PENDING && tk[s]==o); if :: f -> st[s]=RECHECK; f=0 :: else -> f=1 fi )  /* f: it isn't any more, look again */
#endif
     :: f && w==WAITING -> cand[s]=o; f=0
     :: else -> f=0
     fi;
     if :: !f -> s++ :: else fi
  :: else -> break
  od;
  do
  :: n<c ->
     d_step{ s=NS; x=0; do :: x<NS -> if :: cand[x]!=0 && (s==NS || cand[x]<cand[s]) -> s=x :: else fi; x++ :: else -> break od; x=0 }
#ifdef BROKEN_ANYORDER
     if :: s!=NS && cand[NS-1]!=0 -> s=NS-1 :: else fi;
#endif
     if :: s==NS -> break :: else fi;
     o=cand[s];
     STEP( f=(st[s]==WAITING
#ifndef BROKEN_NOTICKET
        && tk[s]==o
#endif
        ); cand[s]=0;
        if :: f -> assert(key[s]==k); st[s]=NOTIFIED; owed++; n++;
              x=0; do :: x<NS -> assert(!(was[x]!=0 && was[x]<o && st[x]==WAITING && tk[x]==was[x]) || cand[x]==0 /* first */); x++ :: else -> break od; x=0
           :: else fi );
#if ASYNC
     if :: f && mb[s]==0 -> f=0; if :: STEP( TELL ) :: STEP( bell=1 ) fi :: else fi;
#endif
     f=0
  :: else -> break
  od;
  s=0; do :: s<NS -> cand[s]=0; was[s]=0; s++ :: else -> break od; s=0; w=0; o=0; f=0
}

/* A notification that nobody heard goes to the next; if there is none, none of those that waited when this began still does. */
inline pass_on(k, drops) {
  n=0;
  d_step{ x=0; do :: x<NS -> left[x]=(st[x]==WAITING && key[x]==k && !gone[mb[x]] -> tk[x] : 0); x++ :: else -> break od; x=0 }
  if :: !drops -> notify(k, 1) :: else fi;
  d_step{ x=0; do :: x<NS -> assert(n==1 || !(left[x]!=0 && st[x]==WAITING && tk[x]==left[x])); left[x]=0; x++ :: else -> break od; x=0; n=0 }
}

inline sweep() {
  me=0;
  do
  :: me<NS ->
     STEP( w=st[me]; o=tk[me]; t=mb[me] );
     if
     :: w!=FREE && gone[t] ->
        if :: w==NOTIFIED -> k=key[me]; pass_on(k, SWEEP_DROPS); f=1 :: else -> f=(st[me]==w) fi;
        STEP( if :: f && st[me]==NOTIFIED -> owed-- :: else fi; if :: f -> st[me]=FREE :: else fi );
        if :: f -> me++ :: else fi                                             /* a notifier was faster: look again */
     :: else -> me++
     fi;
     w=0; o=0; t=0; f=0; k=0
  :: else -> break
  od;
  me=0
}

proctype Proc(byte i) {
  byte s, w, o, x, n, k, ops, me, t; bool f, v; byte cand[NS], was[NS], left[NS];
  if :: i<NW -> ops=(i==0 -> OPS : 1) :: i>=NW && i<NP -> goto notifier :: i==NP -> goto survivor fi;

next_wait:
  if :: ops==0 -> goto done :: else -> ops-- fi;
  if :: k=0 :: NK>1 -> k=1 fi;
  STEP( t=ticket; ticket++ );
  me=0;
  do
  :: me<NS -> STEP( f=(st[me]==FREE) ); 
     if :: f -> STEP( f=(st[me]==FREE); if :: f -> st[me]=CLAIMED; tk[me]=t; mb[me]=i :: else fi ) :: else fi;
     if :: f -> break :: else -> me++ fi
  :: else -> t=0; f=0; goto next_wait          /* full: an error for its caller */
  od;
  f=0;
  STEP( key[me]=k );
#ifdef BROKEN_CHECK_FIRST
  STEP( v=val[k] );
  if :: v -> STEP( st[me]=FREE; tk[me]=0; mb[me]=0 ); goto returned :: else fi;
  STEP( st[me]=WAITING ); goto asleep;
#endif
again:
  STEP( st[me]=PENDING );
  STEP( v=val[k] );
  if
  :: v -> STEP( assert(st[me]==PENDING || st[me]==RECHECK); st[me]=FREE ); goto returned           /* not-equal */
  :: else -> STEP( f=(st[me]==PENDING); if :: f -> st[me]=WAITING :: else fi );
             if :: f -> f=0 :: else -> goto again fi
  fi;
asleep:
#if ASYNC
  if :: i==0 -> STEP( listed=1; lrow=me; lticket=t );
#ifndef BROKEN_NOLOOK
                STEP( TELL )
#endif
     :: else fi;
#endif
  if
#if ASYNC
  :: atomic{ i==0 && fd -> fd=0 }
  :: atomic{ i!=0 && st[me]==NOTIFIED && tk[me]==t }
#else
  :: atomic{ st[me]==NOTIFIED && tk[me]==t }
#endif
#if GIVEUP
  :: STEP( f=(st[me]==WAITING); if :: f -> st[me]=FREE :: else fi );             /* time is up */
     if :: f -> f=0; goto returned :: else fi
  :: STEP( f=(st[me]==WAITING); if :: f -> st[me]=FREE :: else fi );             /* interrupted: what it was given goes on */
     if :: f -> f=0; goto returned :: else fi;
     STEP( assert(st[me]==NOTIFIED && tk[me]==t) );
     pass_on(k, INTERRUPT_DROPS);
     STEP( st[me]=FREE; owed-- ); goto returned
#endif
  fi;
  STEP( assert(st[me]==NOTIFIED && tk[me]==t && owed>0); st[me]=FREE; owed-- );   /* ok */
returned:
#if ASYNC
  if :: i==0 -> d_step{ listed=0; fd=0; lrow=0; lticket=0 } :: else fi; /* its own memory: to die here is to die in the next step */
#endif
  me=0; d_step{ t=0; v=0; f=0; k=0; n=0; s=0; w=0; o=0 }
  goto next_wait;

notifier:
  if :: k=0 :: NK>1 -> k=1 fi;
  if :: STEP( val[k]=1 ) :: skip fi;
  if :: notify(k, 1) :: notify(k, NS) fi;
  goto done;

survivor:
#if MAXC>0
  sweep();
#endif
  x=NW; do :: x<NP -> gone[x] || over[x]; x++ :: else -> break od;
  STEP( val[0]=1 ); notify(0, NS);
#if NK>1
  STEP( val[1]=1 ); notify(1, NS);
#endif
  x=0; do :: x<NP -> if :: gone[x] || over[x] :: timeout -> assert(gone[x] || over[x]) fi; x++ :: else -> break od;   /* nobody sleeps on */
  sweep();
  x=0;
  d_step{ do :: x<NS -> assert(st[x]==FREE); x++ :: else -> break od; assert(owed==0) }
  goto end;

dead:
  gone[i]=1; goto end;
done:
  over[i]=1;
end: skip
}

#if ASYNC
/* Of process 0. */
proctype Housekeeper() {
  do
#ifdef BROKEN_BELL_LATE
  :: bell -> atomic{ TELL }; bell=0
#else
  :: bell -> bell=0; atomic{ TELL }
#endif
#ifndef BROKEN_NOBACKSTOP
  :: ncrash<MAXC && listed && !fd && !(st[lrow]==WAITING && tk[lrow]==lticket) -> atomic{ TELL }   /* every two seconds: who was to ring is dead */
#endif
  :: over[0] || gone[0] -> break
  od
}
#endif

init { byte i; atomic{ i=0; do :: i<=NP -> run Proc(i); i++ :: else -> break od;
#if ASYNC
  run Housekeeper();
#endif
  i=0 } }
