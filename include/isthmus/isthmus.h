/* <isthmus/isthmus.h>: memory that no interpreter owns. Everything libisthmus has; see the headers below. */
#ifndef ISTHMUS_ISTHMUS_H
#define ISTHMUS_ISTHMUS_H

#include <isthmus/atomic.h>
#include <isthmus/clone.h>
#include <isthmus/error.h>
#include <isthmus/exchange.h>
#include <isthmus/heap.h>
#include <isthmus/lease.h>
#include <isthmus/lock.h>
#include <isthmus/process.h>
#include <isthmus/queue.h>
#include <isthmus/segment.h>

#endif
