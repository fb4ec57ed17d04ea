/* point.h: the numbered points of the kill-point tests: places between two steps of the protocol where a process may die.
 *
 * In a normal build IST_POINT is nothing. In the test build (ISTHMUS_POINTS, library isthmus_points) a process that has armed a point kills
 * itself with SIGKILL when it comes to it for the n-th time. The points are in no order; plain_killpoints.c comes to every one of them.
 */
#ifndef ISTI_POINT_H
#define ISTI_POINT_H

/* clang-format off */
#define ISTI_POINTS(X)                                                                                                                    \
    X(QUEUE_ROW_CLAIMED) X(FLIGHT_MARKED) X(FLIGHT_MOVED) X(FLIGHTS_FILLED) X(FLIGHTS_LINKED) X(FLIGHTS_ENDED) X(PUT_CLAIMED)             \
    X(PUT_TAIL) X(PUT_BODY) X(PUT_MARKED) X(PUT_FULL) X(PUT_WOKEN) X(GET_HELD) X(GET_TAKEN) X(GET_WOKEN) X(PASS_COUNTED) X(PASS_HELD)     \
    X(PASS_PASSED) X(PASS_FREED) X(DRAIN_BEGUN) X(DRAIN_EMPTY) X(PUNCH_CLAIMED) X(PUNCH_PUNCHED) X(PUNCH_MOVED) X(SHUTDOWN_SET)           \
    X(SHUTDOWN_DROPPED) X(DONE_COUNTED) X(WAIT_ANNOUNCED) X(LISTEN_ARMED) X(SWEEP_SKIPPED) X(SWEEP_DRAIN) X(WAIT_SLEPT) X(LOCK_TAKEN)     \
    X(LOCK_STARVES) X(LOCK_FREED) X(LOCK_WOKEN) X(LOCK_TOLD) X(LOCK_ABANDONED) X(SWEEP_LOCK) X(SEMAPHORE_TAKEN) X(SEMAPHORE_POSTED)       \
    X(EVENT_SET) X(BARRIER_INSIDE) X(BARRIER_ARRIVED) X(BARRIER_MOVED) X(BARRIER_LEFT) X(SWEEP_BARRIER) X(JOIN_LOCKED) X(JOIN_RAISED)     \
    X(JOIN_DIRTY) X(WINDOW_LOCKED) X(WINDOW_RAISED) X(WINDOW_TAKEN) X(PUBLISH_RAISED) X(PUBLISH_RESERVED) X(PUBLISH_WRITTEN)              \
    X(PUBLISH_HELD) X(PUBLISH_LIVE) X(PUBLISH_DONE) X(HOLD_SET) X(HOLD_MOVED) X(HOLD_REFUSED) X(ATTACH_DONE) X(RELEASE_COUNTED)           \
    X(RELEASE_FORGOTTEN) X(UNHOLD_CLEARED) X(UNHOLD_FENCED) X(FREE_SCANNED) X(FREE_DEAD) X(FREE_PUNCHING) X(FREE_PUNCHED) X(FREE_LOCAL)   \
    X(HINT_BIT) X(HINT_SUMMARY) X(HINT_DONE) X(GIVE_FREE) X(GIVE_DONE) X(HINTS_TAKEN) X(FREEZE_EXCLUSIVE) X(FREEZE_SCANNED)               \
    X(FREEZE_DONE) X(TICKET_RAISED) X(TICKET_RESERVED) X(TICKET_WRITTEN) X(TICKET_LIVE) X(TICKET_STRUCK) X(TICKET_TOLD)                   \
    X(TICKET_DROPPED) X(SWEEP_LOCKED) X(SWEEP_TICKETS) X(SWEEP_RESV) X(SWEEP_PUNCH) X(SWEEP_CLEARED) X(SWEEP_FREED) X(SWEEP_DESCRIPTORS)  \
    X(SWEEP_TOLD) X(SWEEP_CLEAN) X(RECLAIM_LOCKED) X(RECLAIM_FREED) X(RECLAIM_PUNCHED) X(RECLAIM_DONE) X(NAME_LOCKED) X(NAME_ODD)         \
    X(NAME_WRITTEN) X(NAME_DONE) X(FORK_PUBLISHED) X(FORK_HELD) X(FORK_MOVED) X(FORK_PREPARED) X(FORK_PARENT) X(FORK_CHILD) X(GROW_READ)  \
    X(GROW_DONE) X(WAIT_RAISED) X(WAIT_CLAIMED) X(WAIT_WRITTEN) X(WAIT_PENDING) X(WAIT_UNEQUAL) X(WAIT_LOOKED) X(WAIT_ASLEEP)             \
    X(WAIT_HEARD) X(WAIT_GIVEN_UP) X(NOTIFY_RECHECK) X(NOTIFY_LOOKED) X(NOTIFY_MOVED) X(NOTIFY_WOKEN) X(WAIT_LISTED) X(CANCEL_NOTIFIED)   \
    X(CANCEL_PASSED) X(SWEEP_PASSED) X(SWEEP_WAITERS)
/* clang-format on */

enum isti_point {
#define ISTI_POINT_ENUM(name) ISTI_POINT_##name,
    ISTI_POINTS(ISTI_POINT_ENUM)
#undef ISTI_POINT_ENUM
        ISTI_POINT_COUNT
};

#ifdef ISTHMUS_POINTS
#  include <stdbool.h>

void isti_point(enum isti_point point);
/* The process dies when it comes to `point` for the `times`-th time from now on; times 0: not. */
void isti_point_arm(enum isti_point point, unsigned times);
/* From now on it stops there instead (SIGSTOP), and goes on when it is told to. */
void isti_point_stops(bool yes);
/* How often this process came to it. */
unsigned isti_point_reached(enum isti_point point);
extern const char *const isti_point_names[ISTI_POINT_COUNT];
#  define IST_POINT(name) isti_point(ISTI_POINT_##name)
#else
#  define IST_POINT(name) ((void)0)
#endif

#endif
