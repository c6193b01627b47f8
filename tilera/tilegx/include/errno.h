// The errors that messages carry, where there is no C library: Linux's numbers (asm-generic/errno.h), which they have
// on x86-64 and on TILE-Gx, and so between the two.
#pragma once

#define EPERM 1
#define ENOENT 2
#define ESRCH 3
#define EAGAIN 11
#define ENOMEM 12
#define EACCES 13
#define EBUSY 16
#define EINVAL 22
#define ENOSPC 28
#define EPROTO 71
#define EOPNOTSUPP 95
#define EDQUOT 122
