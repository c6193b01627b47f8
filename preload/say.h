// A line on standard error, for what the user has to know and nobody else can tell. Of at most 511 bytes. Changes errno.
#pragma once

#include <stdarg.h>
#include <stdio.h>

#include "preload/kernel.h"

namespace sluice::preload {

[[gnu::format(printf, 1, 2)]] inline void say(const char* format, ...) {
  char line[512];
  va_list list;
  va_start(list, format);
  int n = vsnprintf(line, sizeof line, format, list);
  va_end(list);
  if (n > 0) (void)!kernel::write(2, line, size_t(n) < sizeof line ? size_t(n) : sizeof line - 1);
}

}  // namespace sluice::preload
