/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Logging: one line per event on standard error, `time level event key=value ...`, safe from any
 * thread.
 *
 * The first word of the format is the event's name; what follows are key=value pairs. Values with
 * spaces are quoted by the caller (key="..."). The fence path does not log through here: it must
 * not block.
 */
#ifndef LUNAR_BASE_LOG_H
#define LUNAR_BASE_LOG_H

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };

void log_set_level(enum log_level level);
/* Adds `node=... ` or the like behind the level of every line; `tag` is copied, cut at 95 bytes. */
void log_set_tag(const char *tag);
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)
#define log_info(...)  log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_warn(...)  log_line(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)

#endif
