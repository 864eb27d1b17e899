/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What an address says about how long TCP bears a silent peer. Set on a
 * listening socket, it holds for the connections that come in there.
 */
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "core/error.h"
#include "server/io/address-private.h"

bool
bf_tcp_options_set(int fd, const BfInetSocketAddress *inet, GError **error)
{
    const struct {
        const char *member;
        bool has_value;
        uint32_t value;
        uint32_t max; /* of Linux */
        int option;
    } options[] = {
        {"keep-alive-count", inet->has_keep_alive_count, inet->keep_alive_count,
         127, TCP_KEEPCNT},
        {"keep-alive-idle", inet->has_keep_alive_idle, inet->keep_alive_idle,
         32767, TCP_KEEPIDLE},
        {"keep-alive-interval", inet->has_keep_alive_interval,
         inet->keep_alive_interval, 32767, TCP_KEEPINTVL},
        {"user-timeout-ms", inet->has_user_timeout_ms, inet->user_timeout_ms,
         INT32_MAX, TCP_USER_TIMEOUT},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(options); i++) {
        const int value = (int)options[i].value;

        if (!options[i].has_value || options[i].value == 0) {
            continue; /* as the system has it */
        }
        if (options[i].value > options[i].max) {
            bf_set_error(error,
                         "%s is %" PRIu32 ", but can be %" PRIu32 " at most",
                         options[i].member, options[i].value, options[i].max);
            return false;
        }
        if (setsockopt(fd, IPPROTO_TCP, options[i].option, &value,
                       sizeof(value)) < 0) {
            bf_set_errno(error, errno, "%s cannot be set on the socket",
                         options[i].member);
            return false;
        }
    }
    return true;
}
