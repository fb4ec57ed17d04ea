/* count.pml: the life cycle of one segment's count (layer 1), several threads of one process.
 *
 * Stands for shm/segment.c (create, retain, release, acquire by token and by address, freeze, make_writable), the free slots of
 * shm/slab.c (magazines, tagged stack) and the table of shm/lease.c. A state word is one byte here, laid out as in the code:
 * owners 4 bits (high) | frozen | exclusive | generation 2 bits (low), so overflow and underflow of the owners wrap as they do there.
 * Every access to a shared word is a step of its own; a spin (acquire at an exclusive bit, a lock) is a step that blocks.
 * Default search: an invalid end state is a deadlock and an error.
 *
 * Checked, in every interleaving (S, L: the invariants of shm/README.md):
 *   memory is freed exactly once, never while anybody owns a reference, and nothing is left at the end (S1, S2, L1);
 *   a stale or voided token never acquires; a token or an address never reaches another segment (S3, S4);
 *   nobody becomes a writable owner of a frozen segment; freeze and make_writable succeed only as the one owner (S6);
 *   a slot is in use by one segment at a time and on the free list once; at its last generation it is never used again (S3, S7);
 *   a pickle whose number is outstanding can be loaded, and a number is struck once (L2);
 *   the second release of a handle, after its slot went on, changes nothing; if the slot has not gone on, at most a leak (S5).
 *
 * run.sh takes the following from here. 0 errors, exhaustive, with so many states (spin 6.5.2, -DSAFETY -DCOLLAPSE); larger: with --full.
 *   sound  share                891708
 *   sound  share3               916911  -DNT=3 -DOPS0=2 -DOPS1=1 -DOPS2=1 -DNCREATE=2
 *   sound  stack               2091213  -DMAG=0 -DOPS0=2 -DOPS1=5 -DNCREATE=4 -DADDR=0
 *   sound  stack3              2222099  -DNT=3 -DMAG=0 -DOPS0=2 -DOPS1=1 -DOPS2=1 -DNCREATE=4 -DADDR=0
 *   sound  retire               662858  -DNS=1 -DNCREATE=6 -DOPS0=5 -DOPS1=3 -DSEND=0
 *   sound  freeze              3382095  -DEXCL=1
 *   sound  freeze_retire       2115169  -DEXCL=1 -DNS=1 -DNCREATE=6 -DOPS0=5 -DOPS1=3 -DSEND=0
 *   sound  exclusive           2042389  -DEXCL=2 -DADDR=0
 *   sound  lease               1885113  -DLEASE=1 -DNTOK=2 -DADDR=0 -DSEND=0
 *   sound  lease_freeze         938561  -DLEASE=1 -DNTOK=2 -DEXCL=1 -DADDR=0 -DSEND=0 -DOPS1=2
 *   sound  misuse              2902959  -DMISUSE=1 -DADDR=0
 *   larger share_full          4983824  -DNTOK=2 -DNCREATE=4 -DOPS0=4
 *   larger share3_full        26741102  -DNT=3 -DOPS0=2 -DOPS1=2 -DOPS2=2
 *   larger freeze3_full       19877614  -DNT=3 -DEXCL=1 -DOPS0=2 -DOPS1=2 -DOPS2=2 -DNCREATE=2 -DSEND=0
 *   larger exclusive_full     11037506  -DEXCL=2 -DOPS0=4
 *   larger lease_freeze_full  18376087  -DLEASE=1 -DNTOK=2 -DEXCL=1 -DADDR=0 -DSEND=0 -DOPS0=4
 *   larger lease3_full       16729239  -DNT=3 -DLEASE=1 -DNTOK=2 -DADDR=0 -DSEND=0 -DOPS0=2 -DOPS1=2 -DOPS2=2 -DNCREATE=2
 *   larger misuse3_full       6866029  -DNT=3 -DMISUSE=1 -DOPS0=2 -DOPS1=2 -DOPS2=1 -DADDR=0 -DSEND=0
 * Broken on purpose, -DBROKEN_ and the first word; the assertion that catches it contains the second:
 *   broken NOBUMP            ser[s]==kser     -DNS=1
 *   broken ACQ_GEN           ser[s]==kser     -DNS=1
 *   broken ACQ_ZERO          alive[dt[s]]     -DNS=1
 *   broken ADDR_DATA_FIRST   um[i]==1         -DNS=1
 *   broken SLOT_BEFORE_FREE  st[s]>>4
 *   broken SLOT_BEFORE_BUMP  st[s]>>4
 *   broken ENTRY_LATE        ae[a]==0
 *   broken SEND_LATE         ae[a]==(s+1)
 *   broken REL_REREAD        ae[a]==(s+1)
 *   broken NOTAG             n==2             -DMAG=0 -DOPS0=2 -DOPS1=5 -DNCREATE=4 -DADDR=0
 *   broken RETIRE            ser[s]==kser     -DNS=1 -DNCREATE=5 -DOPS0=6 -DOPS1=2 -DSEND=0 -DADDR=0
 *   broken EX_NOCAS          mine[k]==(s+1)   -DEXCL=1
 *   broken MKW_NOBUMP        ser[s]==kser     -DEXCL=1
 *   broken MKW_WRAP          ser[s]==kser     -DEXCL=1 -DNCREATE=1 -DOPS0=6 -DOPS1=1 -DSEND=0
 *   broken ACQ_EX            mine[k]==(s+1)   -DEXCL=2
 *   broken TAKE_LATE         ae[a]==(s+1)     -DLEASE=1 -DNTOK=2 -DADDR=0 -DSEND=0 -DEXCL=1
 *   broken STRIKE_FIRST      (w>>4)!=1        -DLEASE=1 -DNTOK=2 -DADDR=0 -DSEND=0
 *   broken EXPIRE_STRUCK     kst[v]!=1        -DLEASE=1 -DNTOK=2 -DADDR=0 -DSEND=0
 *   broken ZERO_UNLOCKED     (w>>4)!=0        -DLEASE=1 -DNTOK=2 -DADDR=0 -DSEND=0
 *   broken NO_GENCHECK       mine[k]!=(s+1)   -DMISUSE=1
 *   broken SATURATE_STORE    ser[s]==kser     -DMISUSE=1
 *
 * NOT here: weak memory (litmus/), fork, overflow of the owners, published segments (layer 0), wrap and map, the heap.
 */
#ifndef NT
#define NT 2              /* threads, 2 or 3 */
#endif
#ifndef NS
#define NS 2              /* slots */
#endif
#ifndef NA
#define NA 2              /* addresses the heap has; it gives out any that is free */
#endif
#ifndef OPS0
#define OPS0 3            /* operations of each thread, the releases not counted */
#endif
#ifndef OPS1
#define OPS1 3
#endif
#ifndef OPS2
#define OPS2 0
#endif
#ifndef NCREATE
#define NCREATE 3
#endif
#ifndef NTOK
#define NTOK 1            /* tokens or, with LEASE, pickles */
#endif
#ifndef MAG
#define MAG 1             /* a magazine of one slot a thread; 0: all slots go through the stack */
#endif
#ifndef ADDR
#define ADDR 1            /* acquire by address */
#endif
#ifndef SEND
#define SEND 1            /* retain, handed over in a message */
#endif
#ifndef EXCL
#define EXCL 0            /* freeze, make_writable: 1 as in shm/segment.c, by one exchange; 2 as for published segments, exclusive bit and store */
#endif
#ifndef LEASE
#define LEASE 0
#endif
#ifndef MISUSE
#define MISUSE 0          /* so many second releases of a handle */
#endif
#ifndef GM
#define GM 3              /* greatest generation */
#endif
#define OW 16
#define FZ 8
#define EX 4
#define SAT 192
#define LIM 7
#define own(w) ((w)>>4)
#define gen(w) ((w)&GM)
#define STEP(x) d_step{ x }
#if MISUSE
#define CHECK(x) assert(tainted || (x))
#define LCHECK(x) assert(tainted || sat || (x))
#define WROTE(s) tainted = tainted || hz==(s)+1
#else
#define CHECK(x) assert(x)
#define LCHECK(x) assert(x)
#define WROTE(s) skip
#endif

/* ---- shared by the threads */
byte st[NS];              /* state word */
byte dt[NS];              /* data pointer: an address */
byte ae[NA+1];            /* address -> slot+1 */
byte nx[NS], hd, tag;     /* tagged stack: {hd,tag} is one word; hd = slot+1 */
byte bs, bg;              /* a message: slot+1, generation */
#if LEASE
byte tl;                  /* the table's lock */
bool le[NS]; byte lgen[NS], cnt[NS];   /* entry of a slot's segment: its reference, numbers outstanding */
#endif
/* ---- of one thread each */
byte mag[NT];             /* slot+1 */
byte mine[NT], mg[NT];    /* the handle it owns: slot+1, generation */
/* ---- ghosts */
bool alive[NA+1]; byte um[NT]; bool rw[NT];    /* memory in use, by whom, writable */
bool used[NS], dead[NS], gfz[NS]; byte ser[NS];   /* slot in use, retired; segment frozen; which life, void counted */
byte ks[NTOK], kg[NTOK], kser[NTOK], kst[NTOK];   /* tokens: slot+1, generation, life; numbers: 0 none 1 out 2 struck 3 expired */
byte ncreate=NCREATE, ndone=0;
#if MISUSE
byte ds[NT], dg[NT], nmis=MISUSE;   /* handles already released */
byte hz;                  /* slot+1 in which a second release has subtracted and not yet put back */
bool tainted, sat;        /* somebody else wrote that word meanwhile: nothing is promised then. A count was saturated: a leak is */
#endif

inline unowned(s,a) {     /* nobody owns a reference of the segment in slot s, nobody uses address a */
  k=0; do :: k<NT -> CHECK(mine[k]!=s+1 && um[k]!=a); k++ :: else -> break od; k=0;
  CHECK(bs!=s+1)
#if LEASE
  ; CHECK(!le[s])
#endif
}
/* ---------------- free slots */
inline pop() {            /* s = slot+1, or 0: none left */
  if
  :: mag[i]!=0 -> d_step{ s=mag[i]; mag[i]=0; CHECK(!used[s-1] && !dead[s-1]); used[s-1]=1 }
  :: else ->
     do
     :: STEP( h=hd; t=tag );
        if :: h==0 -> d_step{ s=0; t=0 }; break
           :: else ->
              STEP( v=nx[h-1] );
#ifdef BROKEN_NOTAG
              STEP( ok=(hd==h);
#else
              STEP( ok=(hd==h && tag==t);
#endif
                    if :: ok -> hd=v; tag=t+1; s=h; CHECK(!used[s-1] && !dead[s-1]); used[s-1]=1 :: else fi; h=0; t=0; v=0 );
              if :: ok -> ok=0; break :: else fi
        fi
     od
  fi
}
inline push(x) {          /* slot x: to the magazine, else to the stack */
  if
  :: MAG && mag[i]==0 -> d_step{ used[x]=0; mag[i]=x+1 }
  :: else -> used[x]=0; pushg(x)
  fi
}
inline pushg(x) {
  do
  :: STEP( h=hd; t=tag );
     STEP( nx[x]=h );
     STEP( ok=(hd==h && tag==t); if :: ok -> hd=x+1 :: else fi; h=0; t=0 );
     if :: ok -> ok=0; break :: else fi
  od
}

/* ---------------- create */
inline create() {
  pop();
  if :: s==0 -> skip
     :: else ->
        atomic{ s--; if :: !alive[1] -> a=1 :: !alive[NA] -> a=NA fi; alive[a]=1 };         /* the heap */
        STEP( dt[s]=a );
        STEP( CHECK(ae[a]==0); ae[a]=s+1 );
        STEP( g=gen(st[s]) );
        STEP( WROTE(s); LCHECK(own(st[s])==0);
              st[s]=OW+g; mine[i]=s+1; mg[i]=g; um[i]=a; rw[i]=1; gfz[s]=0; ser[s]++; a=0; s=0; g=0 )
  fi
}

/* ---------------- acquire */
#if EXCL==2 && !defined(BROKEN_ACQ_EX)
#define LOAD(s) atomic{ !(st[s] & EX) -> w=st[s] }
#else
#define LOAD(s) STEP( w=st[s] )
#endif
/* add_owner: w was read from slot s; ok = got it. A failed exchange reads w again. */
inline add(s) {
  do
#if defined(BROKEN_ACQ_GEN)
  :: own(w)==0 -> ok=0; break
  :: own(w)>=LIM-1 -> ok=0; break
  :: own(w)!=0 && own(w)<LIM-1 ->
#elif defined(BROKEN_ACQ_ZERO)
  :: gen(w)!=g -> ok=0; break
  :: gen(w)==g && own(w)>=LIM-1 -> ok=0; break
  :: gen(w)==g && own(w)<LIM-1 ->
#else
  :: gen(w)!=g || own(w)==0 -> ok=0; break
  :: gen(w)==g && own(w)>=LIM-1 -> ok=0; break
  :: gen(w)==g && own(w)!=0 && own(w)<LIM-1 ->
#endif
     atomic{ ok=(st[s]==w);
       if :: ok -> st[s]=w+OW; WROTE(s); mine[i]=s+1; mg[i]=gen(w); um[i]=dt[s]; rw[i]=!(w&FZ);
                   CHECK(used[s] && alive[dt[s]] && !(rw[i] && gfz[s])); break
          :: else fi };
     LOAD(s)
  od
}
inline acquire(q) {       /* token q */
  s=ks[q]-1; g=kg[q];
  LOAD(s);
  add(s);
  atomic{ if :: ok -> CHECK(s+1==ks[q] && ser[s]==kser[q]) :: else fi; s=0; g=0; w=0 }
}
inline byaddr(a0) {
  STEP( s=ae[a0] );
  if :: s!=0 -> s--;
#ifdef BROKEN_ADDR_DATA_FIRST
     STEP( ok=(dt[s]==a0) );
     LOAD(s);
#else
     LOAD(s);
     STEP( ok=(dt[s]==a0) );
#endif
     if :: ok -> g=gen(w); add(s); if :: ok -> CHECK(um[i]==a0) :: else fi :: else fi
  :: else fi;
  atomic{ s=0; w=0; g=0; ok=0 }
}

/* ---------------- freeze, make_writable */
inline alone(mkw) {       /* ghosts at the step that decides or ends: thread i is the one owner of slot s */
  k=0; do :: k<NT -> CHECK((mine[k]==s+1) == (k==i)); k++ :: else -> break od; k=0;
  CHECK(bs!=s+1);
#if LEASE
  CHECK(!le[s]);
#endif
  gfz[s]=!mkw; rw[i]=mkw;
  if :: mkw -> mg[i]=gen(st[s]); ser[s]++ :: else fi
}
inline exclusive(mkw) {
  s=mine[i]-1;
  STEP( w=st[s] );
  if
  :: own(w)!=1 -> skip                                     /* -EBUSY */
  :: own(w)==1 && !mkw && (w&FZ) -> skip                   /* frozen already */
#ifndef BROKEN_MKW_WRAP
  :: own(w)==1 && mkw && gen(w)==GM -> skip                /* -EOVERFLOW: the caller copies */
#endif
  :: else ->
#ifdef BROKEN_EX_NOCAS
     STEP( st[s]=OW+(mkw -> gen(w+1) : FZ+gen(w)); alone(mkw) )
#elif EXCL==2
     STEP( ok=(st[s]==w); if :: ok -> st[s]=w|EX :: else fi );
     if :: ok -> STEP( st[s]=OW+(mkw -> gen(w+1) : FZ+gen(w)); alone(mkw) ) :: else fi
#elif defined(BROKEN_MKW_NOBUMP)
     STEP( ok=(st[s]==w); if :: ok -> st[s]=OW+(mkw -> gen(w) : FZ+gen(w)); alone(mkw) :: else fi )
#else
     STEP( ok=(st[s]==w); if :: ok -> st[s]=OW+(mkw -> gen(w+1) : FZ+gen(w)); alone(mkw) :: else fi )
#endif
  fi;
  atomic{ s=0; w=0; ok=0 }
}

/* ---------------- leases */
#if !LEASE
#define NOLEASE 1
#else
#define NOLEASE (kst[0]!=1 && kst[1]!=1)
inline lock() { atomic{ tl==0 -> tl=i+1 } }
inline unlock() { d_step{ assert(tl==i+1); tl=0 } }
inline take(q) {          /* lease the segment of mine[i], number q */
  s=mine[i]-1;
  lock();
#ifdef BROKEN_TAKE_LATE
  STEP( ok=!le[s]; le[s]=1; lgen[s]=mg[i]; cnt[s]++; kst[q]=1 );
  unlock();
  if :: ok -> STEP( st[s]=st[s]+OW ) :: else fi;
#else
  if :: !le[s] -> STEP( st[s]=st[s]+OW ); STEP( le[s]=1; lgen[s]=mg[i] ) :: else fi;
  STEP( assert(lgen[s]==mg[i]); cnt[s]++; kst[q]=1 );
  unlock();
#endif
  d_step{ s=0; ok=0 }
}
inline strike(q,to) {     /* to: 2 loaded or thrown away, 3 expired; ok: (s,g) is the lease's reference, to be released by the caller */
  lock();
#ifdef BROKEN_EXPIRE_STRUCK
  STEP( ok=(kst[q]==1 || (to==3 && kst[q]==2));
#else
  STEP( ok=(kst[q]==1);
#endif
        if :: ok -> kst[q]=to; s=ks[q]-1; cnt[s]-- :: else fi );
#ifdef BROKEN_ZERO_UNLOCKED
  unlock();
  if :: ok -> STEP( ok=(cnt[s]==0) ); if :: ok -> STEP( le[s]=0; g=lgen[s]; lgen[s]=0 ) :: else fi :: else fi;
#else
  if :: ok -> STEP( ok=(cnt[s]==0); if :: ok -> le[s]=0; g=lgen[s]; lgen[s]=0 :: else fi ) :: else fi;
  unlock();
#endif
  if :: !ok -> s=0 :: else fi
}
#endif

proctype Thr(byte i) {
  byte n, s, g, a, w, h, t, v, k; bool ok, mis;
  n=(i==0 -> OPS0 : (i==1 -> OPS1 : OPS2));
menu:
  do
  :: atomic{ n>0 && mine[i]==0 && ncreate>0 -> n--; ncreate-- }; create()
  /* the tokens */
#if !LEASE
  :: d_step{ n>0 && mine[i]!=0 && ks[0]==0 -> n--; ks[0]=mine[i]; kg[0]=mg[i]; kser[0]=ser[mine[i]-1] }
  :: atomic{ n>0 && mine[i]==0 && ks[0]!=0 -> n-- }; acquire(0); ok=0
#if NTOK>1
  :: d_step{ n>0 && mine[i]!=0 && ks[0]!=0 && ks[1]==0 -> n--; ks[1]=mine[i]; kg[1]=mg[i]; kser[1]=ser[mine[i]-1] }
  :: atomic{ n>0 && mine[i]==0 && ks[1]!=0 -> n-- }; acquire(1); ok=0
#endif
#else
  :: atomic{ n>0 && mine[i]!=0 && ks[0]==0 -> n--; ks[0]=mine[i]; kg[0]=mg[i]; kser[0]=ser[mine[i]-1] }; take(0)
  :: atomic{ n>0 && mine[i]!=0 && ks[0]!=0 && ks[1]==0 -> n--; ks[1]=mine[i]; kg[1]=mg[i]; kser[1]=ser[mine[i]-1] }; take(1)
  :: atomic{ n>0 && mine[i]==0 && kst[0]!=0 -> n--; v=0 }; goto load
  :: atomic{ n>0 && mine[i]==0 && kst[1]!=0 -> n--; v=1 }; goto load
  :: atomic{ (n>0 || i==0) && kst[0]!=0 && kst[0]!=3 -> if :: n>0 -> n-- :: else fi }; strike(0,3); goto drop     /* its deadline has passed */
  :: atomic{ (n>0 || i==0) && kst[1]!=0 && kst[1]!=3 -> if :: n>0 -> n-- :: else fi }; strike(1,3); goto drop
#endif
#if ADDR
  :: atomic{ n>0 && mine[i]==0 && ae[1]!=0 -> n-- }; byaddr(1)
#endif
#if SEND
  :: atomic{ n>0 && mine[i]!=0 && bs==0 -> n--; bs=NS+1 };                     /* a place in the queue */
#ifdef BROKEN_SEND_LATE
     STEP( bs=mine[i]; bg=mg[i] );
     STEP( st[mine[i]-1]=st[mine[i]-1]+OW )
#else
     STEP( WROTE(mine[i]-1); st[mine[i]-1]=st[mine[i]-1]+OW );
     STEP( bs=mine[i]; bg=mg[i] )
#endif
  :: d_step{ n>0 && mine[i]==0 && bs!=0 && bs<=NS -> n--; s=bs-1; mine[i]=bs; mg[i]=bg; bs=0; bg=0;
             um[i]=dt[s]; rw[i]=!(st[s]&FZ); CHECK(used[s] && alive[dt[s]] && !(rw[i] && gfz[s])); s=0 }
  :: d_step{ bs!=0 && bs<=NS && (n>0 || i==0) -> s=bs-1; g=bg; bs=0; bg=0; if :: n>0 -> n-- :: else fi }; goto release   /* unread */
#endif
#if EXCL
  :: atomic{ n>0 && mine[i]!=0 -> n-- }; exclusive(0)
  :: atomic{ n>0 && mine[i]!=0 -> n-- }; exclusive(1)
#endif
#if MISUSE
  :: atomic{ nmis>0 && ds[i]!=0 && (gen(st[ds[i]-1])!=dg[i] || own(st[ds[i]-1])==0) -> nmis--; mis=1; s=ds[i]-1; g=dg[i] }; goto release
#endif
  :: atomic{ mine[i]!=0 -> s=mine[i]-1; g=mg[i]; mine[i]=0; mg[i]=0; um[i]=0; rw[i]=0;
#if MISUSE
             ds[i]=s+1; dg[i]=g;
#endif
     }; goto release
  :: mine[i]==0 && i!=0 -> break
  :: i==0 && mine[0]==0 && ndone==NT-1 && bs==0 && NOLEASE -> break
  od;
  if :: mag[i]!=0 -> d_step{ s=mag[i]-1; mag[i]=0 }; pushg(s) :: else fi;      /* the thread's destructor */
  atomic{ s=0; n=0; ndone++ };
  goto end;

#if LEASE
load:                       /* pickle v */
#ifdef BROKEN_STRIKE_FIRST
  atomic{ t=(kst[v]==1) }; strike(v,2);
  if :: ok -> STEP( w=st[s]; st[s]=w-OW ); assert(own(w)!=1 || !t) :: else fi;      /* a load that was entitled to the data finds it gone */
  d_step{ ok=0; s=0; g=0; t=0; w=0 };
#endif
  acquire(v);
  if :: !ok -> d_step{ assert(kst[v]!=1); v=0 }; goto menu :: else fi;
#ifdef BROKEN_STRIKE_FIRST
  d_step{ ok=0; v=0 }; goto menu;
#endif
  strike(v,2); v=0;
drop:
  if :: ok -> ok=0; goto release :: else goto menu fi;
#endif

release:                    /* handle (s,g); mis: for the second time */
  atomic{ w=st[s]; st[s]=w-OW; WROTE(s);
#if MISUSE
  if :: !mis -> LCHECK(gen(w)==g && own(w)!=0 && own(w)<LIM)
     :: mis && gen(w)!=g -> hz=s+1
     :: mis && gen(w)==g -> sat=1
  fi
#else
  CHECK(gen(w)==g && own(w)!=0)
#endif
  };
#if MISUSE
#ifndef BROKEN_NO_GENCHECK
  if :: gen(w)!=g -> atomic{ st[s]=st[s]+OW; if :: mis -> hz=0 :: else fi; mis=0; s=0; g=0; w=0 }; goto menu      /* put_back */
     :: else fi;
#endif
  if :: own(w)==0 || own(w)>=LIM ->                        /* saturate */
        do :: STEP( w=st[s] );
#ifdef BROKEN_SATURATE_STORE
              atomic{ st[s]=SAT+(w&(OW-1-GM))+g; sat=1; break }
#else
              atomic{ if :: st[s]==w -> st[s]=SAT+(w&(OW-1)); sat=1; break :: else fi }
#endif
        od; atomic{ mis=0; s=0; g=0; w=0 }; goto menu
     :: else fi;
  mis=0;
#endif
#ifdef BROKEN_REL_REREAD
  STEP( w=st[s]+OW );
#endif
  if :: own(w)!=1 -> atomic{ s=0; g=0; w=0 }; goto menu :: else fi;
  STEP( a=dt[s]; g=0; w=0 );                               /* after the fence */
#ifdef BROKEN_SLOT_BEFORE_FREE
  push(s); skip;
#endif
#ifndef BROKEN_ENTRY_LATE
  STEP( CHECK(ae[a]==s+1); if :: ae[a]==s+1 -> ae[a]=0 :: else fi );
#endif
  STEP( unowned(s,a); CHECK(alive[a]); alive[a]=0 );       /* the heap has it back */
#ifdef BROKEN_ENTRY_LATE
  STEP( CHECK(ae[a]==s+1); ae[a]=0 );
#endif
  a=0;
  if
#if defined(BROKEN_RETIRE)
  :: gen(st[s])==GM && GM==0 -> skip
#else
  :: gen(st[s])==GM -> d_step{ used[s]=0; dead[s]=1; s=0 }; goto menu
#endif
  :: else fi;
#ifdef BROKEN_SLOT_BEFORE_BUMP
  push(s); skip;
#endif
#ifndef BROKEN_NOBUMP
  STEP( WROTE(s); LCHECK(own(st[s])==0); st[s]=gen(st[s]+1) );
#endif
#if !defined(BROKEN_SLOT_BEFORE_FREE) && !defined(BROKEN_SLOT_BEFORE_BUMP)
  push(s);
#endif
  s=0; goto menu;
end:
  skip
}

/* everything is back */
proctype Audit() {
  byte k, n;
  atomic{ ndone==NT;
#if MISUSE
  if :: tainted || sat -> goto fin :: else fi;
#endif
  k=hd; do :: k!=0 -> n++; assert(n<=NS); k=nx[k-1] :: else -> break od;
  k=0; do :: k<NS -> if :: dead[k] -> n++ :: else fi; assert(!used[k] && own(st[k])==0 && !(st[k]&EX)); k++ :: else -> break od;
  assert(n==NS);
  k=1; do :: k<=NA -> assert(!alive[k] && ae[k]==0); k++ :: else -> break od };
fin: skip
}
init { byte k; atomic{
  k=0; do :: k<NS-1 -> nx[k]=k+2; k++ :: else -> break od; hd=1;
  run Thr(0); run Thr(1); if :: NT>2 -> run Thr(2) :: else fi; run Audit() } }
