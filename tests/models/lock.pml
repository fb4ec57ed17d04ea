/* lock.pml: a lock's word and its eventcount, when any process may be killed before any step.
 *
 * Stands for shm/lock.c (locks; semaphores have the same loop) over shm/eventcount.c. NP processes take the lock and let it go, some of them
 * more than once; a survivor sweeps the dead and then takes the lock until nothing is reported any more. The word is owner | ABANDONED |
 * STARVING, and every access to it or to the eventcount is a step of its own. No backstop: whoever isn't woken sleeps for ever, but for the one
 * short sleep of somebody who came when another had waited too long (STARVING): that ends by itself, as in the code.
 *
 * Checked, in every interleaving (K: the invariants of shm/README.md):
 *   one owner at a time, and a lock is taken from nobody alive (K1);
 *   whoever is killed while it owns the lock is reported once, to one taker, which doesn't own the lock then (K2);
 *   nobody sleeps beside a lock that is free (K3); in the end it is free.
 *
 * run.sh takes the following from here; see there.
 *   pan    -DVECTORSZ=2048 -m200000
 *   sound  calm            290709  -DMAXC=0
 *   sound  kill             57689  -DNP=2 -DTWICE=1
 *   sound  kill2           105832  -DNP=2 -DTWICE=1 -DMAXC=2
 *   sound  gives_up        343496  -DMAXC=0 -DGIVEUP=1
 *   sound  kill_gives_up    10068  -DNP=2 -DGIVEUP=1
 *   larger kill3          3196891  -DNP=3
 * Broken on purpose, -DBROKEN_ and the first word; the assertion that catches it contains the second:
 *   broken NO_LOOK          over[x]   -DMAXC=0
 *   broken SWEEP_ONCE       over[x]   -DNP=2 -DTWICE=1
 *   broken NO_WAKE          over[x]   -DNP=2 -DTWICE=1
 *   broken FREE_ONLY        told==    -DNP=2
 *   broken CLEAR_STORE      told==    -DNP=3
 *   broken LEAVES           over[x]   -DMAXC=0 -DGIVEUP=1
 *
 * NOT here: weak memory (litmus/lock_data, lock_wake), spinning, the recursion of an RLock (its owner's own word), time.
 */
#ifndef MAXC
#define MAXC 1            /* kills, at most */
#endif
#ifndef NP
#define NP 3              /* processes; the survivor is NP */
#endif
#ifndef TWICE
#define TWICE 0           /* process 0 takes it twice */
#endif
#ifndef GIVEUP
#define GIVEUP 0          /* process 1 may leave at any time: a signal, a timeout */
#endif
#define ABANDONED 16
#define STARVING 32
#define BIT (1<<i)
#define OWNER(w) ((w)&15)
/* ---- shared */
byte word; bool flag; byte seq; byte asleep; /* a bit each */
bool dirty[NP];           /* a dead one's place: not swept yet */
/* ---- ghosts */
byte owners, died, told;  /* who is inside; killed inside; reported */
bool inside[NP+1], gone[NP], over[NP];
byte ncrash=MAXC;

#if MAXC==0
#define STEP(x) atomic{ x }
#else
#define STEP(x) if :: d_step{ x } :: atomic{ i<NP && ncrash>0 -> ncrash--; goto dead } fi
#endif

inline wake_one() {       /* isti_event_wake_one */
  STEP( f=flag );
  if
  :: f -> STEP( seq++; v=seq );
          STEP( f=(asleep!=0); asleep=asleep & (asleep-1) );
          if :: !f -> STEP( f=(flag && seq==v); if :: f -> flag=0; seq++ :: else fi );
                      if :: f -> STEP( asleep=0 ) :: else fi
             :: else fi
  :: else
  fi; f=0; v=0
}

/* r: 0 busy, 1 taken, 2 it was abandoned: reported, and free */
inline take() {
  STEP( w=word );
  do
  :: w & ABANDONED ->
#ifdef BROKEN_CLEAR_STORE
     STEP( word=0; told++ ); r=2; break
#else
     STEP( f=(word==w); if :: f -> word=0; told++ :: else -> w=word fi ); if :: f -> r=2; break :: else fi
#endif
  :: !(w & ABANDONED) && OWNER(w)==0 && (waited || !(w & STARVING) || !flag) -> /* nobody waits: nobody starves */
     if :: keep=0 :: waited -> keep=(w & STARVING) fi;         /* it waited long itself */
     STEP( f=(word==w); if :: f -> word=(i+1)|keep; assert(owners==0); owners++; inside[i]=1 :: else -> w=word fi );
     keep=0; if :: f -> r=1; break :: else fi
  :: else -> r=0; break
  od; f=0
}

proctype Proc(byte i) {
  byte w, v, x, r, keep, ops, m; bool f, waited, first;
  if :: i==0 -> ops=1+TWICE :: i==NP -> goto survivor :: else -> ops=1 fi;

acquire:
  if :: ops==0 -> goto done :: else -> ops-- fi;
  waited=0;
try:
  take();
  if :: r==1 -> goto owner :: r==2 -> goto reported :: else fi;
  if :: waited && !(w & STARVING) && OWNER(w)!=0 -> if :: STEP( if :: word==w -> word=w|STARVING :: else fi ) :: skip fi :: else fi;
  STEP( flag=1; v=seq );                                          /* prepare */
#ifndef BROKEN_NO_LOOK
  STEP( w=word );
  if :: (w & ABANDONED) || (OWNER(w)==0 && (waited || !(w & STARVING) || !flag)) -> w=0; v=0; goto try :: else fi;
#endif
  first=(!waited && (w & STARVING) && OWNER(w)==0);
  STEP( if :: flag && seq==v -> asleep=asleep|BIT :: else fi );         /* the kernel's look */
  w=0; v=0;
  if
  :: atomic{ !(asleep & BIT) -> skip }
  :: atomic{ first && (asleep & BIT) -> asleep=asleep & ~BIT }                  /* the short sleep is over */
#if MAXC>0
  :: atomic{ i<NP && ncrash>0 -> ncrash--; goto dead }
#endif
#if GIVEUP
  :: atomic{ i==1 -> asleep=asleep & ~BIT };
     STEP( f=((word & ABANDONED) || OWNER(word)==0) );
#ifdef BROKEN_LEAVES
     f=0;
#endif
     if :: f -> wake_one() :: else fi; f=0; first=0; goto acquire /* whoever it may have been woken instead of */
#endif
  fi;
  first=0; waited=1; goto try;
owner:
  STEP( assert(OWNER(word)==i+1 && owners==1) );
  STEP( assert(OWNER(word)==i+1); owners--; inside[i]=0; word=word & STARVING );
reported:
  wake_one();
  r=0; w=0; waited=0;
  goto acquire;

survivor:
#if MAXC>0
  /* the dead, in whatever order they fall; at the end everybody is dead or done */
  do
  :: atomic{ (gone[0] && dirty[0]) || (gone[1] && dirty[1]) || (gone[NP-1] && dirty[NP-1]) ->
       m=0; do :: gone[m] && dirty[m] -> break :: else -> m++ od }
     d_step{ w=word; f=0 };
     do
     :: OWNER(w)==m+1 && !f -> atomic{ if :: word==w ->
#ifdef BROKEN_FREE_ONLY
             word=w & STARVING; f=1
#else
             word=ABANDONED; f=1
#endif
             :: else -> w=word fi }                               /* a waiter made it STARVING meanwhile */
#ifdef BROKEN_SWEEP_ONCE
        ; f=1
#endif
     :: else -> f=0; break
     od; skip;
#ifndef BROKEN_NO_WAKE
     d_step{ seq++; asleep=0 };
#endif
     d_step{ dirty[m]=0 }; w=0; m=0
  :: timeout -> break                                             /* everybody is dead or done, or asleep */
  od;
#endif
  x=0; do :: x<NP -> if :: gone[x] || over[x] :: timeout -> assert(gone[x] || over[x]) fi; x++ :: else -> break od; x=0;   /* nobody sleeps on */
  waited=1;
  take();
  if :: r==2 -> r=0; take() :: else fi;
  assert(r==1 && told==died);
  goto end;

dead:
  atomic{ asleep=asleep & ~BIT; if :: inside[i] -> died++; inside[i]=0; owners-- :: else fi; dirty[i]=1; gone[i]=1 }
  goto end;
done:
  over[i]=1;
end: skip
}

init { byte i; atomic{ i=0; do :: i<=NP -> run Proc(i); i++ :: else -> break od } }
