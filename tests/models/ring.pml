/* ring.pml: shm/queue.c: a ring of messages between processes that may be killed, what the messages refer to, and the queue's own end.
 *
 * NP processes and a survivor, one queue q, one segment e that messages refer to, and with LIST one more, c, whose content lists e (a message
 * with more segments than its body can name). Every access to a shared word is a step; before each a process may be killed. Positions and
 * slots as in the code; a ring of N slots. The rules of bits and S are those of hold.pml (mv as there), taken together where that model has
 * shown that they may be: publishing is one step, a sweep holds the byte lock.
 *
 * Checked, in every interleaving (Q and D: the invariants of shm/README.md):
 *   a message is received once, or dropped with its queue, and never both; of one producer they come in order (Q1, Q2);
 *   nothing dies that a message names or a process uses (D1, Q3); a queue dies only when nobody holds it (Q5);
 *   who finds a position written by the dead goes on behind it (Q4);
 *   when all are gone and the dead were swept, nothing is left: q, e and c are dead, once (D3, Q5);
 *   with PUNCH: nobody's message is in a slot when its page is punched, and a claim of a position long past isn't taken for one (Q6).
 *
 * run.sh takes the following from here; see there.
 *   pan    -DVECTORSZ=2048 -m200000
 *   sound  plain            594782  -DMAXC=0 -DPUTS0=1 -DPUTS1=1 -DGETS=1 -DGETS2=0
 *   sound  kill             504538  -DPUTS0=1 -DPUTS1=0 -DGETS=1
 *   sound  list             333275  -DLIST=1 -DPUTS0=1 -DPUTS1=0 -DGETS=1 -DGETS2=0
 *   sound  punch            333624  -DMAXC=0 -DPUNCH=1 -DREFS=0 -DPUTS0=1 -DPUTS1=1 -DGETS=1 -DGETS2=0
 * Broken on purpose, -DBROKEN_ and the first word; the assertion that catches it contains the second:
 *   broken LIST_LAST        ph[0]==3    -DLIST=1 -DPUTS0=1 -DPUTS1=0 -DGETS=1 -DGETS2=0
 *   broken SKIP_NODUTY      ph[0]==3    -DPUTS0=1 -DPUTS1=0 -DGETS=1
 *   broken NOMARK           st[k]==2    -DPUTS0=1 -DPUTS1=0 -DGETS=1
 *   broken CONSUME_FIRST    sent[k]     -DPUTS0=1 -DPUTS1=0 -DGETS=1
 *   broken NODRAIN          ph[2]==3    -DPUTS0=1 -DPUTS1=0 -DGETS=1
 *   broken STALE            sent[k]     -DMAXC=0 -DPUNCH=1 -DREFS=0 -DPUTS0=1 -DPUTS1=1 -DGETS=1 -DGETS2=0
 *
 * NOT here: weak memory (litmus/), waiting (event.pml), more cells than a descriptor has (flight.pml), several queues, garbage.
 */
#ifndef MAXC
#define MAXC 1            /* kills, at most */
#endif
#ifndef PUTS0
#define PUTS0 1
#endif
#ifndef PUTS1
#define PUTS1 1
#endif
#ifndef GETS
#define GETS 1            /* of process 1; GETS2: of process 2, the same if not said */
#endif
#ifndef GETS2
#define GETS2 GETS
#endif
#ifndef LIST
#define LIST 0            /* 1: process 0's message names c, which lists e */
#endif
#ifndef REFS
#define REFS 1            /* 0: messages name nothing */
#endif
#ifndef PUNCH
#define PUNCH 0           /* 1: slots behind head become zero again */
#endif
#define NP 3
#ifndef N
#define N 2
#endif
#define LIMIT N
#define EMPTY 0
#define RSV 1
#define FULL 2
#define SKIP 3
#define E 0               /* descriptors */
#define C 1
#define Q 2
#define ABSENT 0
#define LIVE 1
#define DRAIN 2
#define DEAD 3

/* ---- shared */
byte ph[3];                          /* S */
bool hb[12];                         /* holders: hb[descriptor*4+process] */
bool mv[12]=1;                       /* S has moved since somebody read it */
byte cell[3];                        /* flight marks for q: position+1 */
byte head, tail, floor, puncher;
byte who;                            /* x of q's S in DRAIN: process + 1 */
byte st[N], sp[N], so[N], body[N];   /* slots: one word, and the message's number */
byte lk[NP];                         /* byte locks */
bool dirty[NP];
/* ---- ghosts */
bool use[12], done[NP], here[NP];
byte sent[8], taken[8], dropped[8], last[2];
byte ncrash=MAXC;

#define moved(d) mv[(d)*4]=1; mv[(d)*4+1]=1; mv[(d)*4+2]=1; mv[(d)*4+3]=1
#if MAXC==0
#define STEP(x) atomic{ x }
#else
#define STEP(x) if :: atomic{ x } :: atomic{ i<NP && ncrash>0 -> ncrash--; goto dead } fi
#endif
#define names_e(b) (REFS && b!=0)
#define in_ring(k) (st[k]==FULL && sp[k]>=head)

inline nobody(d) {                   /* inside the exchange that ends d */
  assert(!use[(d)*4] && !use[(d)*4+1] && !use[(d)*4+2] && !use[(d)*4+3]);
  k=0; do :: k<N -> assert(!(in_ring(k) && (d==E && names_e(body[k]) || d==C && LIST && body[k]<4 && body[k]!=0))); k++ :: else -> break od; k=0
}
/* d: E or C; the caller goes on behind it */
inline try_free(d) {
  STEP( lph=ph[d]; mv[(d)*4+i]=0; f=0 );
  if :: lph!=LIVE -> skip
     :: else ->
        STEP( f=hb[(d)*4] );
        if :: !f -> STEP( f=hb[(d)*4+1] ) :: else fi;
        if :: !f -> STEP( f=hb[(d)*4+2] ) :: else fi;
        if :: !f -> STEP( f=hb[(d)*4+3] ) :: else fi;
        if :: !f && d!=Q -> STEP( f=(cell[d]!=0 && head<cell[d]) ) :: else fi;
        if :: !f -> STEP( if :: !mv[(d)*4+i] -> nobody(d); ph[d]=(d==Q -> DRAIN : DEAD); if :: d==Q -> who=i+1 :: else fi; moved(d) :: else fi ) :: else fi
  fi;
  atomic{ mv[(d)*4+i]=1; lph=0; f=0 }
}
inline hold(d) {                     /* ok: held */
  STEP( hb[(d)*4+i]=1 );
  STEP( ok=(ph[d]==LIVE); if :: ok -> moved(d); use[(d)*4+i]=1 :: else fi );
  if :: ok -> skip :: else -> STEP( hb[(d)*4+i]=0 ); try_free(d) fi
}
inline unhold(d) { atomic{ use[(d)*4+i]=0 }; STEP( hb[(d)*4+i]=0 ); try_free(d) }
inline mark(d) {
#ifndef BROKEN_NOMARK
  STEP( if :: cell[d]<t+1 -> cell[d]=t+1 :: else fi );
#endif
  STEP( assert(ph[d]==LIVE); moved(d) )
}

/* Position h is passed without being received: SKIP, or what a dying queue holds. m: its message. */
inline pass() {
  ok=0;
  if :: LIST && m!=0 && m<4 -> hold(C) :: else fi;   /* its list is there while c is */
  atomic{ wl=ok; ok=0 };
  STEP( ok=(head==h); if :: ok -> head=h+1; if :: w==FULL -> dropped[m]++; assert(dropped[m]+taken[m]==1) :: else fi :: else fi );
#ifndef BROKEN_SKIP_NODUTY
  if :: ok && names_e(m) && (!LIST || m>=4 || wl) -> try_free(E) :: else fi;
#endif
  if :: wl -> unhold(C)
     :: !wl && ok && LIST && m!=0 && m<4 -> try_free(C)
     :: else fi;
  atomic{ wl=0; ok=0 }
}

/* What is left of a queue that nobody holds, by the one that DRAIN names */
inline drain() {
  atomic{ wh=(ph[Q]==DRAIN && who==i+1) };                     /* its own word: nobody else changes it while it lives */
  do
  :: !wh -> break
  :: else ->
     STEP( h=head );
     STEP( w=st[h%N]; p=sp[h%N]; m=body[h%N] );
     if :: w!=EMPTY && p==h -> STEP( if :: tail==h -> tail=h+1 :: else fi ); pass(); wh=1
        :: else -> STEP( assert(ph[Q]==DRAIN && who==i+1 && !hb[8] && !hb[9] && !hb[10]); ph[Q]=DEAD; who=0; moved(Q) ); wh=0
     fi
  od;
  atomic{ wh=0; lph=0; h=0; w=0; p=0; m=0 }
}
inline sweep(v) {
  STEP( ok=(dirty[v] && lk[v]==0); if :: ok -> lk[v]=i+1 :: else fi );
  if :: ok ->
     STEP( if :: st[0]==RSV && so[0]==v+1 -> st[0]=SKIP; so[0]=0 :: else fi );
     STEP( if :: st[1]==RSV && so[1]==v+1 -> st[1]=SKIP; so[1]=0 :: else fi );
     if :: PUNCH -> STEP( if :: puncher==v+1 -> puncher=0 :: else fi ) :: else fi;
     STEP( assert(!here[v]); hb[E*4+v]=0 ); try_free(E);
     if :: LIST -> STEP( hb[C*4+v]=0 ); try_free(C) :: else fi;
     STEP( hb[Q*4+v]=0 ); try_free(Q);
#ifndef BROKEN_NODRAIN
     STEP( if :: ph[Q]==DRAIN && who==v+1 -> who=i+1 :: else fi );
#endif
     drain();
     STEP( dirty[v]=0 );
     STEP( lk[v]=0 )
  :: else fi; ok=0
}

proctype Proc(byte i) {
  byte n, g, lph, t, h, w, p, m, k, v, fl; bool f, ok, wh, wl, had, stale;
  if :: i==NP -> goto survivor :: else fi;
  n=(i==0 -> PUTS0 : (i==1 -> PUTS1 : 0)); g=(i==1 -> GETS : (i==2 -> GETS2 : 0));
  do
  :: n>0 -> goto put
put_done: skip
  :: g>0 -> g--; goto get
got: skip
  :: n==0 && g==0 -> break
  od;
  if :: use[E*4+i] -> unhold(E) :: else fi;
  unhold(Q);
  drain();
  atomic{ here[i]=0; lk[i]=0; dirty[i]=0; done[i]=1 };
  goto end;

put:
  n--;
  v=0;
again:
  if :: v==2 -> v=0; goto put_done :: else -> v++ fi;          /* full, or others are faster: enough */
  STEP( t=tail );
  STEP( w=st[t%N]; p=sp[t%N]; m=body[t%N] );
  STEP( fl=(PUNCH -> floor : head) );
  if :: w!=EMPTY && p==t -> STEP( if :: tail==t -> tail=t+1 :: else fi ); goto again
     :: else fi;
#ifdef BROKEN_FLOOR
  if :: w==EMPTY || (p<t && fl+N>t) -> skip :: else -> goto again fi;
#else
  if :: fl+LIMIT>t && (w==EMPTY || p<t) -> skip :: else -> goto again fi;
#endif
  if :: LIST && i==0 -> atomic{ ph[C]=LIVE; hb[C*4]=1; use[C*4]=1; moved(C) } :: else fi;
  STEP( ok=(st[t%N]==w && (w==EMPTY || sp[t%N]==p)); if :: ok -> st[t%N]=RSV; sp[t%N]=t; so[t%N]=i+1 :: else fi );
  if :: !ok -> goto again :: else -> ok=0 fi;
  STEP( if :: tail==t -> tail=t+1 :: else -> stale=1 fi );
#ifndef BROKEN_STALE
  if :: stale -> STEP( stale=(head>t) ); if :: stale -> stale=0;
        STEP( if :: st[t%N]==RSV && sp[t%N]==t && so[t%N]==i+1 -> st[t%N]=EMPTY; so[t%N]=0; sp[t%N]=0 :: else fi ); goto again :: else fi
     :: else fi;
#endif
  stale=0;
  m=(i==0 -> 1 : 4)+n;                                         /* process 0: 1..3, process 1: 4..; n counts down */
  STEP( assert(st[t%N]==RSV && sp[t%N]==t); body[t%N]=m );
  if :: REFS ->
#ifdef BROKEN_LIST_LAST
        mark(E); if :: LIST && i==0 -> mark(C) :: else fi
#else
        if :: LIST && i==0 -> mark(C) :: else fi; mark(E)
#endif
     :: else fi;
  STEP( assert(st[t%N]==RSV && sp[t%N]==t && so[t%N]==i+1); st[t%N]=FULL; so[t%N]=0; sent[m]++ );
  if :: LIST && i==0 -> unhold(C) :: else fi;
  v=0; t=0; w=0; p=0; m=0; fl=0;
  goto put_done;

get:
  STEP( h=head );
  STEP( w=st[h%N]; p=sp[h%N]; v=so[h%N]; m=body[h%N] );
  if
  :: w==EMPTY || p!=h -> skip
  :: w==RSV && p==h && v!=0 && v-1!=i && dirty[v-1] && lk[v-1]==0 -> v--; sweep(v)
  :: w==RSV && p==h && !(v!=0 && v-1!=i && dirty[v-1] && lk[v-1]==0) -> skip
  :: w==SKIP && p==h -> pass()
  :: w==FULL && p==h ->
     ok=1;
     m=body[h%N];
#ifdef BROKEN_CONSUME_FIRST
     STEP( wh=(head==h); if :: wh -> head=h+1 :: else fi );
     if :: wh && REFS -> hold(E); assert(ok); wh=0; unhold(E) :: else fi; ok=0; wh=0;
#else
     if :: LIST && m<4 -> hold(C) :: else fi;
     atomic{ wh=ok && LIST && m<4; had=use[E*4+i] };
     if :: ok && REFS && !had -> hold(E) :: else fi;            /* held already: one owner more, in this process */
     if :: ok -> STEP( ok=(head==h); if :: ok -> head=h+1; taken[m]++; assert(taken[m]+dropped[m]==1 && sent[m]==1);
                        assert(last[m/4]==0 || last[m/4]>m); last[m/4]=m :: else fi )
        :: else fi;
     ok=0; if :: wh -> wh=0; unhold(C) :: else fi;
     if :: REFS && !had && use[E*4+i] -> unhold(E) :: else fi   /* used and let go of; or not ours */
#endif
  fi;
  if :: PUNCH ->                                                /* what is behind head goes back */
        STEP( ok=(puncher==0); if :: ok -> puncher=i+1 :: else fi );
#ifdef BROKEN_PUNCH_NOLOCK
        ok=1;
#endif
        if :: ok ->
             STEP( t=floor ); STEP( h=head );
             if :: t<h -> STEP( assert(!(sp[t%N]!=t && st[t%N]!=EMPTY && sp[t%N]>t)); st[t%N]=EMPTY; sp[t%N]=0; so[t%N]=0; body[t%N]=0 );
                          STEP( if :: floor==t -> floor=t+1 :: else fi )
                :: else fi;
             STEP( puncher=0 )
           :: else fi
     :: else fi;
  atomic{ ok=0; wh=0; had=0; h=0; w=0; p=0; v=0; m=0; t=0; fl=0 };
  goto got;

survivor:
  done[0] && done[1] && done[2];
  v=0;
  do :: v<NP && dirty[v] -> sweep(v); v++
     :: v<NP && !dirty[v] -> v++
     :: else -> break
  od;
  atomic{ assert(ph[Q]==DEAD); assert(ph[E]==DEAD); assert(ph[C]!=LIVE);
    k=1; do :: k<8 -> assert(sent[k]==taken[k]+dropped[k]); k++ :: else -> break od; goto end };

dead:
  atomic{ here[i]=0; use[i]=0; use[4+i]=0; use[8+i]=0;
    k=0; do :: k<NP -> if :: lk[k]==i+1 -> lk[k]=0 :: else fi; k++ :: else -> break od;
    mv[i]=1; mv[4+i]=1; mv[8+i]=1; n=0; g=0; lph=0; t=0; h=0; w=0; p=0; m=0; k=0; v=0; fl=0; f=0; ok=0; wh=0; wl=0; had=0; stale=0; done[i]=1 };
end: skip
}
init { atomic{ ph[E]=(REFS -> LIVE : DEAD); ph[Q]=LIVE;
  byte j; do :: j<NP -> if :: REFS && j<2 -> hb[E*4+j]=1; use[E*4+j]=1 :: else fi; hb[Q*4+j]=1; use[Q*4+j]=1; here[j]=1; dirty[j]=1; lk[j]=j+1; j++ :: else -> break od;
  run Proc(0); run Proc(1); run Proc(2); run Proc(NP) } }
