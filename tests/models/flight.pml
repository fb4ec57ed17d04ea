/* flight.pml: shm/flight.c: marks of more messages than a descriptor has cells for: extensions, rows of the same table.
 *
 * One segment d with one cell, one more row that can become its extension, with one cell too. Two senders put d into a queue each, so that the
 * second mark needs the extension; a receiver passes what was put, or skipped. Every access to a shared word is a step; before each a sender may
 * be killed. mv as in hold.pml; publishing and the ring are not here (hold.pml, ring.pml): to pass a position is one step.
 *
 * Checked, in every interleaving (Q3, D3): d dies only when nobody holds it and no message names it; at the end, after one sweep, d is dead and
 * the extension's row is free again.
 *
 *   pan    -DVECTORSZ=2048 -m200000
 *   sound  plain       140296  -DMAXC=0
 *   sound  kill        285607
 *   sound  kill2       326785  -DMAXC=2
 * Broken on purpose, -DBROKEN_ and the first word; the assertion that catches it contains the second:
 *   broken FLIGHTS_FIRST   eph==0
 *   broken NOSCAN          sent[0]    -DMAXC=0
 *   broken NOSWEEP         eph==0
 *
 * Not seen by it: a mark that doesn't move S on. The sender's bit is there until its mark is, and who frees looks at bits first; S is moved
 * nevertheless, so that the rule of a holder and that of a mark are one.
 */
#ifndef MAXC
#define MAXC 1
#endif
#define FREE 0
#define RESV 1
#define FLIGHTS 2
/* ---- shared */
bool live=1, hb[2]=1, mv[3]=1;
byte cell, ecell;                    /* marks: sender + 1 */
byte link;                           /* generation of the extension that is linked; 0: none */
byte eph, egen=1, ewho;              /* the other row's S */
bool passed[2];                      /* head of that sender's queue is beyond its message */
bool rsv[2], dirty[2]=1;
byte lk[2];
/* ---- ghosts */
bool sent[2], done[2];
byte ncrash=MAXC;
#define moved() mv[0]=1; mv[1]=1; mv[2]=1
#if MAXC==0
#define STEP(x) atomic{ x }
#else
#define STEP(x) if :: atomic{ x } :: atomic{ i<2 && ncrash>0 -> ncrash--; goto dead } fi
#endif
#define gone(m) (m==0 || passed[m-1])

inline end_extension() {             /* its segment is over */
  STEP( g=egen; ok=(eph==FLIGHTS) );
  if :: ok -> STEP( if :: eph==FLIGHTS && egen==g -> assert(!live); eph=FREE; egen++ :: else fi ) :: else fi; ok=0
}
inline try_free() {
  STEP( mv[i]=0; f=!live );
  if :: !f -> STEP( f=hb[0] ) :: else fi;
  if :: !f -> STEP( f=hb[1] ) :: else fi;
  if :: !f -> STEP( f=!gone(cell) ) :: else fi;
#ifndef BROKEN_NOSCAN
  if :: !f -> STEP( l=link );
        if :: l!=0 -> STEP( ok=(eph==FLIGHTS && egen==l) ); if :: ok -> STEP( f=!gone(ecell) ) :: else fi :: else fi
     :: else fi;
#endif
  ok=0;
  if :: !f -> STEP( f=!(live && !mv[i]); l=link;
              if :: !f -> assert(!hb[0] && !hb[1] && !(sent[0] && !passed[0]) && !(sent[1] && !passed[1])); live=0; moved() :: else fi );
        if :: !f && l!=0 -> end_extension() :: else fi
     :: else fi;
  atomic{ mv[i]=1; f=0; l=0 }
}
proctype P(byte i) {                 /* 0, 1: senders; 2: the receiver, which also sweeps */
  byte g, l, k, n; bool f, ok;
  if :: i==2 -> goto receiver :: else fi;
  STEP( rsv[i]=1 );                                                       /* its position is claimed, and the body names d */
mark:
  STEP( ok=gone(cell); l=cell );
  if :: ok -> STEP( ok=(cell==l); if :: ok -> cell=i+1 :: else fi ); if :: ok -> goto marked :: else goto mark fi :: else fi;
extend:
  STEP( l=link; ok=(l!=0 && egen==l); k=eph );
  if :: ok && k==RESV -> STEP( if :: eph==RESV && egen==l -> eph=FLIGHTS; ewho=0 :: else fi ); goto extend      /* help */
     :: ok && k==FLIGHTS -> goto mark_there
     :: else -> skip
  fi;
  STEP( ok=(eph==FREE); if :: ok -> eph=RESV; ewho=i+1; g=egen :: else fi );
  if :: !ok -> goto mark :: else fi;                                      /* no row is free: the other's comes */
  STEP( ecell=0 );
#ifdef BROKEN_FLIGHTS_FIRST
  STEP( eph=FLIGHTS; ewho=0 );
#endif
  STEP( ok=(link==l); if :: ok -> link=g :: else fi );
  if :: !ok -> STEP( if :: eph==RESV && egen==g -> eph=FREE; egen++; ewho=0 :: else fi ) :: else fi;
  goto extend;
mark_there:
  STEP( ok=gone(ecell); k=ecell );
  if :: ok -> STEP( ok=(ecell==k && egen==l); if :: ok -> ecell=i+1 :: else fi ); if :: ok -> goto marked :: else fi :: else fi;
  goto mark;
marked:
  STEP( assert(live); moved() );
  STEP( sent[i]=1; rsv[i]=0 );
  STEP( hb[i]=0 );
  try_free();
  atomic{ dirty[i]=0; lk[i]=0; done[i]=1; goto end };
receiver:
  do
  :: sent[0] && !passed[0] -> atomic{ passed[0]=1 }; try_free()
  :: sent[1] && !passed[1] -> atomic{ passed[1]=1 }; try_free()
  :: done[0] && dirty[0] -> n=0; goto sweep
  :: done[1] && dirty[1] -> n=1; goto sweep
  :: done[0] && done[1] && !dirty[0] && !dirty[1] && (!sent[0] || passed[0]) && (!sent[1] || passed[1]) -> break
  od;
  assert(!live); assert(eph==FREE);
  goto end;
sweep:                                                                    /* in the order of the rows: d first */
  if :: rsv[n] -> rsv[n]=0; passed[n]=1; try_free() :: else fi;           /* SKIP, and passed */
  atomic{ hb[n]=0 }; try_free();
  if :: eph==RESV && ewho==n+1 -> atomic{ eph=FREE; egen++; ewho=0 }
#ifndef BROKEN_NOSWEEP
     :: eph==FLIGHTS && !live -> end_extension()
#endif
     :: else fi;
  dirty[n]=0; goto receiver;
dead:
  atomic{ mv[i]=1; g=0; l=0; k=0; f=0; ok=0; done[i]=1 };
end: skip
}
init { atomic{ run P(0); run P(1); run P(2) } }
