/* slot.pml: a published segment inside one process: slots, the table of entries, its locks, with other threads and another process.
 *
 * Stands for shm/descriptor.c (isti_publish, isti_descriptor_acquire, isti_descriptor_release, isti_segment_exclusive, give_back) and for
 * what of shm/segment.c meets it: creating, releasing, look-up by address. Process 0 has the threads 0 and 1 (2 with NT=3), process B = 3
 * is one thread without a table, and may be killed. One descriptor used again in the next generation, as many slots as threads and one
 * more, one block of memory: `life` says whose it is. Every access to a shared word, a slot's state or the table is a step; a lock is a step that
 * waits, and so is a look-up by address that meets the exclusive bit. Sequence numbers as in hold.pml.
 * Default search: an invalid end state is a deadlock and an error.
 *
 * Checked, in every interleaving (S, D: the invariants of shm/README.md):
 *   memory is freed once, never while a thread or B uses it; a segment dies when nobody uses it (S1, S2, D1);
 *   a token leads to the segment it was made of, in its generation, or nowhere; so does the address (S3, D1);
 *   outside the stripe lock the entry names a slot iff our bit is set, and S then lives in the entry's generation (D2);
 *   nobody is a writable owner of a frozen segment; make_writable succeeds only as the one owner everywhere (S6);
 *   at the end nothing is left: rows, bits, entry, address, slots, memory.
 *
 * run.sh takes the following from here; see there.
 *   pan    -DVECTORSZ=2048 -m200000
 *   sound  share                728131  -DOPSB=0 -DOPS1=1
 *   sound  other                488286  -DOPS0=2 -DOPS1=1
 *   sound  address              838376  -DADDR=1 -DOPSB=0 -DOPS1=1
 *   sound  freeze               617777  -DEXCL=1 -DOPS1=0 -DOPSB=2 -DNCREATE=1
 *   sound  freeze_address      1299175  -DEXCL=1 -DADDR=1 -DOPSB=0 -DOPS1=1
 *   sound  kill                1262220  -DMAXC=1 -DOPS0=2 -DOPS1=1 -DOPSB=2
 *   larger freeze_more         3259325  -DEXCL=1 -DOPS1=0 -DOPSB=2 -DOPS0=4 -DNCREATE=1
 * Broken on purpose, -DBROKEN_ and the first word; the assertion that catches it contains the second:
 *   broken STALE            lg==g          -DOPSB=0 -DOPS0=4 -DOPS1=1
 *   broken REMOVE_ANY       um[0]!=life    -DOPSB=0
 *   broken ADDR_ANY         ae==(s+1)      -DOPSB=0
 *   broken SLOT_EARLY       um[0]!=life    -DOPSB=0
 *   broken ENTRY_NOLOCK     life==plife[g] -DOPSB=0
 *   broken PUB_UNLOCKED     hb0==(es!=0)   -DOPSB=0
 *   broken PUB_LIVE         frz            -DEXCL=1
 *   broken SETTLE_LIVE      frz            -DEXCL=1 -DOPSB=0
 *   broken ADD_EX           frz            -DEXCL=1 -DOPSB=0 -DADDR=1
 *   broken SCAN_FIRST       rw[0]          -DEXCL=1 -DOPS1=0 -DNCREATE=1
 *   broken ENTRY_GEN        gen==eg        -DEXCL=1 -DOPSB=0
 *   broken NO_PUBLISH_LOCK  frz            -DEXCL=1 -DOPSB=0 -DNCREATE=1
 *
 * NOT here: weak memory (litmus/), several descriptors and windows, fork (fork.pml), leases, memory of one process alone (LOCAL), errors
 * (no memory, full tables), retain through a handle that another thread has (count.pml), B with a table and threads of its own.
 */
#ifndef NT
#define NT 2
#endif
#ifndef MAXC
#define MAXC 0            /* kills of B */
#endif
#ifndef OPS0
#define OPS0 3            /* operations, letting go not counted */
#endif
#ifndef OPS1
#define OPS1 2
#endif
#ifndef OPS2
#define OPS2 0
#endif
#ifndef OPSB
#define OPSB 1
#endif
#ifndef NCREATE
#define NCREATE 2
#endif
#ifndef ADDR
#define ADDR 0            /* 1: look-up by address */
#endif
#ifndef EXCL
#define EXCL 0            /* 1: freeze and make_writable */
#endif
#define NS (NT+1)
#define B 3
#define GM 5              /* generations, at most */
#define FREE 0
#define RESV 1
#define LIVE 2
#define FROZEN 3
#define DEAD 4
#define isl (ph==LIVE || ph==FROZEN)
/* ---- shared: S, bits, the hint for process 0's window */
byte ph=FREE, gen=1; bool mv[4]=1; bool hb0, hb1, hint;
/* ---- private to process 0: entry, stripe lock, what it gave; slots {ow,fr,ex,sg = one word}; address entry */
byte es, eg, sl; bool given;
byte ow[NS], sg[NS], desc[NS], pl[NS]; bool fr[NS], ex[NS];
byte ae;
/* ---- of one thread each: its handle, slot + 1 and generation */
byte mine[4], mg[4];
/* ---- ghosts */
bool taken[NS];                      /* slot in use, or in a thread's hand */
byte life, um[4]; bool rw[4], alive, frz;
byte plife[GM+1];                    /* whose the generation is */
bool done[4], bdirty=1; byte ncrash=MAXC, ncreate=NCREATE;

#define moved() mv[0]=1; mv[1]=1; mv[2]=1; mv[3]=1
#define nouse() assert(um[0]!=life && um[1]!=life && um[2]!=life && um[3]!=life)
#define got(x) um[i]=life; rw[i]=(x); assert(alive && !(frz && rw[i]))
#define D2 assert(hb0==(es!=0) && (es==0 || (isl && gen==eg)))
#define froze() assert((i==0 || um[0]!=life || !rw[0]) && (i==1 || um[1]!=life || !rw[1]) && (i==2 || um[2]!=life || !rw[2]) && \
  (i==3 || um[3]!=life || !rw[3])); frz=1; rw[i]=0
#define sole() assert((i==0 || um[0]!=life) && (i==1 || um[1]!=life) && (i==2 || um[2]!=life) && (i==3 || um[3]!=life)); frz=0; rw[i]=1
#if MAXC==0
#define STEP(x) atomic{ x }
#else
#define STEP(x) if :: atomic{ x } :: atomic{ i==B && ncrash>0 -> ncrash--; goto dead } fi
#endif
#define LOCK atomic{ sl==0 -> sl=i+1; D2 }
#define UNLOCK STEP( D2; assert(sl==i+1); sl=0 )

proctype Thr(byte i) {
  byte n, s, g, arr, lph, lg; bool f, last, mkw, cleared;
  n=(i==0 -> OPS0 : (i==1 -> OPS1 : (i==2 -> OPS2 : OPSB)));
again:
  atomic{ s=0; g=0; lph=0; lg=0; f=0; last=0; mkw=0; cleared=0; mv[i]=1; assert(arr==0) };
  do
  :: atomic{ i!=B && n>0 && mine[i]==0 && ncreate>0 && !alive -> n--; ncreate--;
       if :: !taken[0] -> s=0 :: !taken[1] -> s=1 :: !taken[2] -> s=2 fi;
       taken[s]=1; assert(ow[s]==0 && ae==0); life++; alive=1; frz=0; desc[s]=0; ow[s]=1; fr[s]=0; ae=s+1;
       mine[i]=s+1; mg[i]=sg[s]; got(1); s=0 }
  :: atomic{ i!=B && n>0 && mine[i]!=0 && desc[mine[i]-1]==0 -> n--; s=mine[i]-1 }; goto publish
  :: atomic{ n>0 && mine[i]==0 && plife[1]!=0 -> n--; g=1 }; goto attach
  :: atomic{ n>0 && mine[i]==0 && plife[2]!=0 -> n--; g=2 }; goto attach
#if ADDR
  :: atomic{ i!=B && n>0 && mine[i]==0 && ae!=0 -> n-- }; goto address
#endif
#if EXCL
  :: atomic{ n>0 && mine[i]!=0 && (i!=B || gen<GM) -> n--; if :: mkw=0 :: mkw=1 fi; s=mine[i]-1 }; goto exclusive
#endif
  :: i!=B && hint -> goto take_hints
  :: atomic{ mine[i]!=0 -> s=mine[i]-1; mine[i]=0; um[i]=0; rw[i]=0 }; goto release
  :: mine[i]==0 && (i!=0 || (done[1] && done[2] && done[B] && !hint && !bdirty)) -> break
  :: atomic{ i==0 && done[B] && bdirty -> bdirty=0 }; goto sweep
  od;
  goto dead;

publish:                      /* of its slot s */
  atomic{ pl[s]==0 -> pl[s]=i+1 };
  STEP( f=(desc[s]==0 && ph==FREE && gen<GM); if :: f -> ph=RESV; moved() :: else fi );
  if :: f ->
#ifdef BROKEN_PUB_UNLOCKED
        STEP( hb0=1 );
        STEP( ph=LIVE; moved(); plife[gen]=life; given=1 );
        atomic{ sl==0 -> sl=i+1 };
        STEP( es=s+1; eg=gen; sl=0 );
#else
        LOCK;
        STEP( hb0=1 );
#ifdef BROKEN_PUB_LIVE
        STEP( assert(ph==RESV); ph=LIVE; moved(); plife[gen]=life );
#else
        STEP( assert(ph==RESV); ph=(fr[s] -> FROZEN : LIVE); moved(); plife[gen]=life );
#endif
        STEP( es=s+1; eg=gen; given=1 );
        UNLOCK;
#endif
        STEP( desc[s]=gen )
     :: else fi;
  STEP( pl[s]=0 );
  goto again;

attach:                       /* isti_descriptor_acquire(g) */
  if :: i==B -> goto hold :: else fi;
#ifdef BROKEN_ENTRY_NOLOCK
  STEP( f=(es!=0 && eg==g); s=es );
  if :: f -> STEP( s--; f=(ow[s]>0 && !ex[s]);
                   if :: f -> ow[s]++; mine[i]=s+1; mg[i]=sg[s]; got(!fr[s]); assert(life==plife[g] && isl && gen==g) :: else fi );
             if :: f -> goto settled :: else fi
     :: else fi;
  s=0;
#endif
  LOCK;
#ifdef BROKEN_STALE
  if :: es!=0 && eg==g ->
#else
  if :: es!=0 && eg!=g -> goto unlock
     :: es!=0 && eg==g ->
#endif
        s=es-1;
        STEP( f=(ow[s]>0 && !ex[s]);
              if :: f -> ow[s]++; mine[i]=s+1; mg[i]=sg[s]; got(!fr[s]); assert(life==plife[g] && isl && gen==g) :: else fi );
        if :: f -> goto unlock :: else fi
     :: else fi;
  if :: arr==0 ->
        UNLOCK;
        STEP( f=(isl && gen==g) );
        if :: !f -> goto again
           :: else -> atomic{ if :: !taken[0] -> arr=1 :: !taken[1] -> arr=2 :: !taken[2] -> arr=3 :: NS>3 && !taken[NS-1] -> arr=NS fi;
                              taken[arr-1]=1; assert(ow[arr-1]==0); goto attach }
        fi
     :: else fi;
  f=(es!=0);
  if :: f -> STEP( lph=ph; lg=gen )                                            /* the last owner has gone, its release waits for us */
     :: else ->
hold:
        if :: i==B -> STEP( f=(isl && gen==g) ); if :: !f -> goto again :: else fi :: else fi;
        STEP( if :: i==B -> hb1=1 :: else -> hb0=1 fi );
        STEP( f=(isl && gen==g); if :: f -> moved(); lph=ph; lg=gen;
                                        if :: i==B -> mine[B]=1; got(ph==LIVE); assert(life==plife[g]) :: else fi :: else fi );
        if :: i==B && f -> goto again
           :: !f -> STEP( if :: i==B -> hb1=0 :: else -> hb0=0 fi ); cleared=1
           :: else fi
  fi;
  if :: i==B -> goto try_free :: else fi;
  if :: !cleared ->                                                            /* settle */
        STEP( s=arr-1; arr=0; desc[s]=g; es=s+1; eg=g; ow[s]=1; mine[i]=s+1; mg[i]=sg[s]; ae=s+1;
#ifdef BROKEN_SETTLE_LIVE
              fr[s]=0;
#else
              fr[s]=(lph==FROZEN);
#endif
              got(!fr[s]); assert(lg==g && isl && gen==g && life==plife[g]) )
     :: else fi;
unlock:
  UNLOCK;
settled:
  atomic{ if :: arr!=0 -> taken[arr-1]=0; arr=0 :: else fi };                  /* drop_arrival */
  if :: cleared -> goto try_free :: else -> goto again fi;

release:
  if :: i==B -> STEP( hb1=0 ); goto try_free :: else fi;
  STEP( assert(taken[s] && ow[s]>0 && !ex[s] && sg[s]==mg[i]); ow[s]--; last=(ow[s]==0) );
  if :: !last -> goto again :: else -> last=0 fi;
  if :: desc[s]==0 ->
        STEP( if :: ae==s+1 -> ae=0 :: else fi );
        STEP( nouse(); assert(alive); alive=0 );
        STEP( sg[s]++; taken[s]=0 );
        goto again
     :: else fi;
#ifdef BROKEN_SLOT_EARLY
  STEP( sg[s]++; taken[s]=0 );
#endif
  LOCK;
#ifdef BROKEN_ADDR_ANY
  STEP( assert(es!=s+1 || ae==s+1); ae=0 );
#else
  STEP( assert(es!=s+1 || ae==s+1); if :: ae==s+1 -> ae=0 :: else fi );
#endif
#ifdef BROKEN_REMOVE_ANY
  if :: es!=0 ->
#else
  if :: es==s+1 ->
#endif
        STEP( es=0; eg=0 );
        STEP( hb0=0 );
        last=1
     :: else fi;
  UNLOCK;
#ifndef BROKEN_SLOT_EARLY
  STEP( sg[s]++; taken[s]=0 );
#endif
  if :: last -> skip :: else -> goto again fi;

try_free:
  STEP( f=isl; mv[i]=0 );
  if :: !f -> goto again :: else fi;
  STEP( f=!hb0 ); if :: !f -> goto again :: else fi;
  STEP( f=!hb1 ); if :: !f -> goto again :: else fi;
  STEP( f=!mv[i]; if :: f -> nouse(); ph=DEAD; moved() :: else fi );
  if :: !f -> goto again :: f && i==B -> STEP( hint=1 ); goto again :: else fi;
give_back:
  LOCK;
  STEP( f=(given && ph==DEAD && es==0) );
  if :: f -> STEP( given=0; assert(ph==DEAD); ph=FREE; gen++; moved() ) :: else fi;
  UNLOCK;
  if :: f -> STEP( nouse(); assert(alive && ae==0); alive=0 ) :: else fi;
  goto again;
take_hints:
  STEP( f=hint; hint=0 );
  if :: f -> goto give_back :: else -> goto again fi;
sweep:                        /* of B */
  STEP( hb1=0 );
  STEP( if :: ph==DEAD -> hint=1 :: else fi );                                 /* it may have died before it could tell */
  goto try_free;

address:
  STEP( s=ae );
  if :: s!=0 -> s-- :: else -> goto again fi;
  atomic{ !ex[s] -> f=(ow[s]>0); g=sg[s] };
  if :: !f -> goto again :: else fi;
  atomic{
#ifndef BROKEN_ADD_EX
    !ex[s] ->
#endif
    if :: ow[s]>0 && sg[s]==g -> ow[s]++; mine[i]=s+1; mg[i]=g; got(!fr[s]) :: else fi; g=0 };
  goto again;

#if EXCL
exclusive:                    /* freeze, or make_writable (mkw), its slot s */
  if :: i==B ->
        STEP( lg=gen; mv[i]=0; assert(isl); f=!(ph==FROZEN && !mkw) );
        if :: f -> STEP( f=!hb0 ) :: else fi;
        if :: f -> STEP( if :: !mv[i] -> if :: mkw -> sole(); plife[gen+1]=life; gen++; ph=LIVE :: else -> froze(); ph=FROZEN fi; moved()
                            :: else fi )
           :: else fi;
        goto again
     :: else fi;
#ifndef BROKEN_NO_PUBLISH_LOCK
  atomic{ pl[s]==0 -> pl[s]=i+1 };
#endif
  STEP( lg=desc[s] );
  if :: lg==0 ->
        STEP( f=(ow[s]==1 && !ex[s] && sg[s]==mg[i] && (mkw || !fr[s]));
              if :: f && mkw -> sole(); sg[s]++; mg[i]++; fr[s]=0 :: f && !mkw -> froze(); fr[s]=1 :: else fi )
     :: lg!=0 && (!mkw || lg<GM) ->
        LOCK;
#ifdef BROKEN_SCAN_FIRST
        STEP( last=hb1 );
#endif
        STEP( f=(ow[s]==1 && !ex[s] && sg[s]==mg[i] && (mkw || !fr[s])); if :: f -> ex[s]=1; lph=fr[s] :: else fi );
        if :: f ->
              STEP( assert(isl && gen==lg); mv[i]=0 );
#ifndef BROKEN_SCAN_FIRST
              STEP( last=hb1 );
#endif
              f=0;
              if :: !last -> STEP( f=!mv[i]; if :: f && mkw -> sole(); plife[gen+1]=life; gen++; ph=LIVE; moved()
                                                :: f && !mkw -> froze(); ph=FROZEN; moved() :: else fi ) :: else fi;
              last=0;
              if :: f && mkw ->
#ifndef BROKEN_ENTRY_GEN
                    STEP( eg=lg+1 );
#endif
                    STEP( desc[s]=lg+1 )
                 :: else fi;
              STEP( ex[s]=0; if :: f && mkw -> sg[s]++; mg[i]++; fr[s]=0 :: f && !mkw -> fr[s]=1 :: else fi )
           :: else fi;
        UNLOCK
     :: else fi;
#ifndef BROKEN_NO_PUBLISH_LOCK
  STEP( pl[s]=0 );
#endif
  goto again;
#endif
dead:
  atomic{ um[i]=0; rw[i]=0; mine[i]=0; n=0; s=0; g=0; f=0; lph=0; lg=0; mkw=0; cleared=0; mv[i]=1; done[i]=1;
    if :: i==0 -> assert(ph==FREE && !hb0 && !hb1 && es==0 && sl==0 && ae==0 && !alive && !given && !hint);
                  assert(!taken[0] && !taken[1] && !taken[2] && ow[0]==0 && ow[1]==0 && ow[2]==0 && pl[0]==0 && pl[1]==0)
       :: else fi }
}
init { atomic{ if :: NT<3 -> done[2]=1 :: else fi; run Thr(0); run Thr(1); if :: NT>2 -> run Thr(2) :: else fi; run Thr(B) } }
