/* error.c: texts for the errors of <isthmus/error.h>. */
#include <isthmus/error.h>

const char *ist_strerror(int error) {
    switch (error) {
    case 0: return "no error";
    case -EINVAL: return "invalid argument";
    case -ENOMEM: return "out of memory";
    case -ESTALE: return "the segment is gone: its last owner has let go";
    case -EXDEV: return "the token belongs to another domain";
    case -EBUSY: return "somebody else owns a reference";
    case -EROFS: return "the memory is read-only";
    case -EOVERFLOW: return "a counter would leave its range";
    case -ENOTRECOVERABLE: return "the memory belongs to the parent process";
    case -ENOSPC: return "no room: a table of the domain is full, or the segment can't become so large";
    case -EUSERS: return "the domain has no room for another process";
    case -EMLINK: return "the process is in too many domains";
    case -EBADMSG: return "the domain's tables hold what can't be";
    case -EEXIST: return "the name is taken";
    case -ENOENT: return "nothing of that name or at that place";
    case -ENOTUNIQ: return "several domains have that name";
    case -ETIMEDOUT: return "the time is up, or another process is in the way and doesn't go on";
    case -EACCES: return "permission denied";
    case -EBADF: return "bad file descriptor";
    case -ENODEV: return "the file can't be mapped";
    case -EAGAIN: return "not now: the queue is empty or full, or the system lacks resources";
    case -ENOSYS: return "the system lacks this call";
    case -EMFILE: return "too many open files in this process";
    case -ENFILE: return "too many open files in the system";
    case -ENOLCK: return "the system has no file lock to give";
    case -ESHUTDOWN: return "the queue is shut down";
    case -EMSGSIZE: return "a message has too many bytes";
    case -ERANGE: return "more tasks are said to be done than there were";
    case -EINTR: return "a signal came";
    case -ECANCELED: return "the wait was called off";
    case -EOWNERDEAD: return "whoever had the lock died, or ended, with it";
    case -EPIPE: return "the barrier is broken";
    case -EPERM: return "operation not permitted";
    case -EIO: return "input/output error";
    default: return "unknown error";
    }
}
