/* barrier.pml: a barrier's word, when any process may be killed before any step.
 *
 * Stands for shm/barrier.c. NP processes meet OPS times at a barrier of PARTIES; one of them may give up (its time is up, which breaks the
 * round) or reset the barrier; a survivor sweeps the dead. A process has one thread, so `inside` is a bit each. The word is (generation, last
 * outcomes, broken, count), changed by exchanges alone; waking is by the eventcount of event.pml, here: whoever waits looks whenever the word moves.
 *
 * Checked, in every interleaving (K7):
 *   nobody passes round g unless PARTIES had come in g and none of them was reset, and all that pass are of one round;
 *   who is told "broken" was in a round that was broken or reset;
 *   nobody waits for ever: also not for one that was killed inside (a dead process is swept).
 *
 * run.sh takes the following from here; see there.
 *   pan    -m200000
 *   sound  calm        6526  -DMAXC=0
 *   sound  reset     374542  -DMAXC=0 -DOPS=2 -DRESET=1
 *   sound  kill       94989  -DNP=3
 *   sound  kill2      20132  -DNP=2 -DOPS=2 -DMAXC=2
 *   larger rounds   1080534  -DNP=3 -DOPS=2
 * Broken on purpose, -DBROKEN_ and the first word; the assertion that catches it contains the second:
 *   broken INSIDE_LATE    counted[x]
 *   broken LEAVE_FIRST    counted[x]
 *   broken ONE_OUTCOME    was_broken[g]   -DMAXC=0 -DRESET=1 -DOPS=2
 *
 * NOT here: weak memory, the eventcount (event.pml), the action, more rounds late than the word remembers.
 */
#ifndef MAXC
#define MAXC 1            /* kills, at most */
#endif
#ifndef NP
#define NP 3
#endif
#ifndef PARTIES
#define PARTIES 2
#endif
#ifndef OPS
#define OPS 1
#endif
#ifndef RESET
#define RESET 0
#endif
#define GENS 8
/* ---- shared */
byte gen, count, outcomes; bool broken; /* one word. outcomes: bit k: round gen-1-k was reset */
bool inside[NP];
/* ---- ghosts */
byte came[GENS]; bool was_reset[GENS], was_broken[GENS];
byte counted[NP];         /* round + 1 in which it has come and from which it hasn't left */
bool gone[NP], over[NP], swept[NP];
byte ncrash=MAXC;

#if MAXC==0
#define STEP(x) atomic{ x }
#else
#define STEP(x) if :: d_step{ x } :: atomic{ i<NP && ncrash>0 -> ncrash--; goto dead } fi
#endif

proctype Proc(byte i) {
  byte g, c, ops=OPS; bool f, b;
arrive:
  if :: ops==0 -> goto done :: else -> ops-- fi;
again:
#ifndef BROKEN_INSIDE_LATE
  STEP( inside[i]=1 );
#endif
  STEP( g=gen; c=count; b=broken );
  if
  :: b -> STEP( inside[i]=0 ); goto done
  :: !b && c==PARTIES -> STEP( inside[i]=0 );                       /* those before are leaving */
     if :: atomic{ gen!=g || broken -> skip }
#if MAXC>0
        :: atomic{ ncrash>0 -> ncrash--; goto dead }
#endif
     fi; goto again
  :: !b && c<PARTIES -> STEP( f=(gen==g && count==c && !broken); if :: f -> count++; came[g]++; counted[i]=g+1 :: else fi );
     if :: !f -> goto again :: else fi
  fi;
#ifdef BROKEN_INSIDE_LATE
  STEP( inside[i]=1 );
#endif
#ifdef BROKEN_LEAVE_FIRST
  STEP( inside[i]=0 );
#endif
  if
  :: c+1==PARTIES ->                                                /* the last: releases */
     STEP( f=(gen==g && !broken); if :: f -> gen++; count=0; outcomes=(outcomes<<1)&127 :: else fi );
     goto left
  :: else
  fi;
  if
  :: atomic{ gen!=g || broken -> skip }
#if MAXC>0
  :: atomic{ ncrash>0 -> ncrash--; goto dead }
#endif
  :: i==0 -> STEP( if :: gen==g && !broken -> broken=1; was_broken[g]=1 :: else fi ) /* its time is up */
#if RESET
  :: i==1 -> STEP( if :: count>0 || broken -> was_reset[gen]=1; gen++; count=0; broken=0; outcomes=((outcomes<<1)&127)|1 :: else fi )
#endif
  fi;
  STEP( b=(gen==g && broken) || (gen!=g && ((outcomes >>
#ifdef BROKEN_ONE_OUTCOME
     0
#else
     (gen-g-1)
#endif
     ) & 1)); f=(gen==g && !broken);
     assert(f || b || (came[g]==PARTIES && !was_reset[g]) /* passed */);
     assert(!b || was_broken[g] || was_reset[g]) );
  if :: f -> goto done :: else fi;
left:
  STEP( counted[i]=0 );
  STEP( inside[i]=0 );
  f=0; b=0; g=0; c=0;
  goto arrive;
dead:
  atomic{ gone[i]=1 }
  goto end;
done:
  over[i]=1;
end: skip
}

proctype Survivor() {
  byte x;
  do
  :: atomic{ (gone[0] && !swept[0]) || (gone[1] && !swept[1]) || (gone[NP-1] && !swept[NP-1]) ->
       x=0; do :: gone[x] && !swept[x] -> break :: else -> x++ od }
     if :: inside[x] -> atomic{ broken=1; was_broken[gen]=1 } :: else fi;
     inside[x]=0;
     atomic{ swept[x]=1; x=0 }
  :: timeout -> break
  od;
  /* who waits alone for a partner that isn't there any more has to be told by somebody: as a program does that ends */
  x=0; do :: x<NP -> assert(!gone[x] || broken || counted[x]!=gen+1); x++ :: else -> break od;  /* not for one that had come and died */
  if :: count>0 && !broken -> atomic{ broken=1; was_broken[gen]=1 } :: else fi;
  x=0; do :: x<NP -> if :: gone[x] || over[x] :: timeout -> assert(gone[x] || over[x]) fi; x++ :: else -> break od
}

init { byte i; atomic{ i=0; do :: i<NP -> run Proc(i); i++ :: else -> break od; run Survivor() } }
