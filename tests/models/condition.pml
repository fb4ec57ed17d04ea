/* condition.pml: a condition and its lock, when waiters may be killed before any step.
 *
 * Stands for shm/signal.c's conditions: rows of waiter.c (waiter.pml; here a row is one step) that are taken before the lock is given back. NW
 * waiters take one item each, NN producers make one each and notify one; a survivor sweeps the dead and makes an item for whoever lacks one because
 * somebody died with it.
 *
 * Checked, in every interleaving (K8): no waiter is asleep beside an item, unless the one that was woken for it heard so and was killed.
 *
 * run.sh takes the following from here; see there.
 *   pan    -m200000
 *   sound  calm     25294  -DMAXC=0
 *   sound  kill    312781
 * Broken on purpose, -DBROKEN_ and the first word; the assertion that catches it contains the second:
 *   broken LATE_ROW      items<=died_with -DMAXC=0
 *   broken SWEEP_DROPS   items<=died_with
 *
 * NOT here: the lock's own word (lock.pml), timeouts (waiter.pml), weak memory.
 */
#ifndef MAXC
#define MAXC 1            /* kills, at most */
#endif
#ifndef NW
#define NW 3
#endif
#ifndef NN
#define NN 2
#endif
#define NP (NW+NN)
#define WAITING 1
#define NOTIFIED 2
/* ---- shared */
byte owner, items;        /* owner: i + 1; a dead one's lock is taken from it by the sweep */
byte row[NW], ticket[NW], next=1;
/* ---- ghosts */
byte died_with;           /* killed behind its notification, before it took the item */
bool gone[NP], over[NP], swept[NP], heard[NP];
byte ncrash=MAXC;

#if MAXC==0
#define STEP(x) atomic{ x }
#else
#define STEP(x) if :: d_step{ x } :: atomic{ i<NW && ncrash>0 -> ncrash--; goto dead } fi
#endif

/* The longest waiting becomes NOTIFIED. Uses x, y. */
inline notify() {
  y=NW; x=0;
  do :: x<NW -> if :: row[x]==WAITING && (y==NW || ticket[x]<ticket[y]) -> y=x :: else fi; x++ :: else -> break od;
  if :: y<NW -> row[y]=NOTIFIED :: else fi; x=0; y=0
}

proctype Waiter(byte i) {
  bool f;
  if :: atomic{ owner==0 -> owner=i+1 }
#if MAXC>0
     :: atomic{ ncrash>0 -> ncrash--; goto dead }
#endif
  fi;
  do
  :: STEP( f=(items>0) ); if :: f -> break :: else fi;
#ifndef BROKEN_LATE_ROW
     STEP( row[i]=WAITING; ticket[i]=next; next++ );
#endif
     STEP( owner=0 );
#ifdef BROKEN_LATE_ROW
     STEP( row[i]=WAITING; ticket[i]=next; next++ );
#endif
end_asleep:
     if :: atomic{ row[i]==NOTIFIED -> row[i]=0; heard[i]=1 }
#if MAXC>0
        :: atomic{ ncrash>0 -> ncrash--; goto dead }
#endif
     fi;
     if :: atomic{ owner==0 -> owner=i+1 }
#if MAXC>0
        :: atomic{ ncrash>0 -> ncrash--; goto dead }
#endif
     fi
  od;
  STEP( items--; heard[i]=0 );
  STEP( owner=0 );
  over[i]=1;
  goto end;
dead:
  atomic{ gone[i]=1; if :: heard[i] -> died_with++ :: else fi }
end: skip
}

proctype Producer(byte i) {
  byte x, y;
  atomic{ owner==0 -> owner=i+1 };
  atomic{ items++ };
  atomic{ notify() };
  atomic{ owner=0 };
  over[i]=1
}

proctype Survivor() {
  byte x, y, m;
  do
  :: atomic{ (gone[0] && !swept[0]) || (gone[1] && !swept[1]) || (gone[NW-1] && !swept[NW-1]) ->
       m=0; do :: gone[m] && !swept[m] -> break :: else -> m++ od };
     atomic{ if :: owner==m+1 -> owner=0 :: else fi };
#ifdef BROKEN_SWEEP_DROPS
     atomic{ row[m]=0 };
#else
     if :: atomic{ row[m]==NOTIFIED -> notify() }; row[m]=0 :: atomic{ row[m]!=NOTIFIED -> row[m]=0 } fi;
#endif
     atomic{ swept[m]=1; m=0 }
  :: timeout -> break
  od;
  m=0;
  do
  :: m<NW -> assert(gone[m] || over[m] || items<=died_with); m++ /* else it is lost */
  :: else -> break
  od;
  assert(owner==0)
}

init { byte i; atomic{ i=0; do :: i<NW -> run Waiter(i); i++ :: else -> break od; do :: i<NP -> run Producer(i); i++ :: else -> break od; run Survivor() } }
