/* SPDX-License-Identifier: Apache-2.0 */
/* One write(2) per line, so that lines of several threads and processes never mix; see log.h. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static enum log_level threshold = LOG_LEVEL_INFO;
static char tag_text[96];

void log_set_level(enum log_level level)
{
    threshold = level;
}

void log_set_tag(const char *tag)
{
    snprintf(tag_text, sizeof tag_text, "%s", tag);
}

void log_line(enum log_level level, const char *format, ...)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    char line[2048];
    struct timespec now;
    struct tm tm;

    if (level < threshold)
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    size_t n = strftime(line, sizeof line, "%FT%T", &tm);
    n += (size_t)snprintf(line + n, sizeof line - n, ".%03ldZ %s %s%s", now.tv_nsec / 1000000,
                          names[level], tag_text, tag_text[0] ? " " : "");
    va_list args;
    va_start(args, format);
    int m = vsnprintf(line + n, sizeof line - n - 1, format, args);
    va_end(args);
    if (m < 0)
        return;
    n += (size_t)m < sizeof line - n - 1 ? (size_t)m : sizeof line - n - 2;
    line[n++] = '\n';
    ssize_t ignored = write(STDERR_FILENO, line, n);
    (void)ignored;
}
