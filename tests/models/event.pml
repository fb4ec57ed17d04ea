/* event.pml: shm/eventcount.c: waiting 1 | sequence in one futex word, and no backstop: whoever isn't woken sleeps for ever.
 *
 * Three waiters take one thing each; two wakers make two and one. A waiter sets the flag, looks once more, sleeps if the word is still what its
 * exchange left. A waker makes the thing, then looks at the flag; if it is set: sequence + 1, wake one; if none was asleep: flag off and
 * sequence + 1, wake all.
 *
 * Checked, in every interleaving: everything is taken, nobody is left asleep.
 *
 *   pan    -m200000
 *   sound  three     4333965
 * Broken on purpose, -DBROKEN_ and the first word; the assertion that catches it contains the second:
 *   broken NO_SECOND_WAKE    items==0
 *   broken SAME_SEQUENCE     items==0
 *
 * NOT here: memory orders (litmus/event_wake.litmus), kills (a waiter that dies leaves the flag at most), the backstop.
 */
#define NW 3
byte items, seq, got, wakers=2; bool flag, asleep[NW];

inline take(r) { atomic{ if :: items>0 -> items--; got++; r=1 :: else -> r=0 fi } }
inline wake_one(n) {
  atomic{ if :: asleep[0] -> asleep[0]=0; n=1 :: asleep[1] -> asleep[1]=0; n=1 :: asleep[2] -> asleep[2]=0; n=1 :: else -> n=0 fi }
}
proctype Waiter(byte i) {
  bool r; byte v;
  do
  :: take(r); if :: r -> break :: else fi;
     atomic{ flag=1; v=seq };                                  /* prepare */
     take(r); if :: r -> break :: else fi;
     atomic{ if :: flag && seq==v -> asleep[i]=1 :: else fi }; /* the kernel's look */
     !asleep[i]
  od
}
proctype Waker(byte count) {
  bool n, f; byte v;
  do
  :: count>0 -> count--; items++;
     f=flag;
     if :: f ->
           atomic{ seq++; v=seq };
           wake_one(n);
           if :: !n -> atomic{ f=(flag && seq==v); if :: f -> flag=0;
#ifndef BROKEN_SAME_SEQUENCE
                         seq++
#else
                         skip
#endif
                       :: else fi };
                       if :: f ->
#ifndef BROKEN_NO_SECOND_WAKE
                               atomic{ asleep[0]=0; asleep[1]=0; asleep[2]=0 }
#else
                               skip
#endif
                          :: else fi
              :: else fi
        :: else fi
  :: else -> break
  od;
  atomic{ wakers-- }
}
init {
  atomic{ run Waiter(0); run Waiter(1); run Waiter(2); run Waker(2); run Waker(1) };
  timeout;
  assert(wakers==0 && items==0 && got==3)
}
