/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The other end of a monitor's connection. */
#include "qmp-peer.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "core/co-io.h"
#include "core/util.h"
#include "io/channel-socket.h"

void
bf_test_peer_init(BfTestPeer *peer, int fd)
{
    peer->fd = fd;
    peer->channel = bf_channel_socket_new(fd);
    peer->input = g_string_new(NULL);
}

static int
connect_to(int fd, const char *path)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};

    g_strlcpy(un.sun_path, path, sizeof(un.sun_path));
    return connect(fd, (struct sockaddr *)&un, sizeof(un)) < 0 ? -errno : 0;
}

void
bf_test_peer_co_connect(BfTestPeer *peer, const char *path)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    g_assert_cmpint(connect_to(fd, path), ==, 0);
    bf_test_peer_init(peer, fd);
}

void
bf_test_peer_co_connect_soon(BfTestPeer *peer, const char *path)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int ret = 0;

    /* It is not bound yet, or bound but does not listen. */
    while ((ret = connect_to(fd, path)) == -ENOENT || ret == -ECONNREFUSED) {
        bf_co_sleep_ns(BF_NS_PER_MS);
    }
    g_assert_cmpint(ret, ==, 0);
    bf_test_peer_init(peer, fd);
}

void
bf_test_peer_clear(BfTestPeer *peer)
{
    bf_channel_free(peer->channel);
    g_string_free(peer->input, TRUE);
}

void
bf_test_peer_co_send(BfTestPeer *peer, const char *text)
{
    g_assert_true(
        bf_channel_co_write_all(peer->channel, text, strlen(text), NULL));
}

void
bf_test_peer_send_fd(BfTestPeer *peer, const char *text, int fd)
{
    char control[CMSG_SPACE(sizeof(int))] = "";
    struct iovec iov = {(char *)text, strlen(text)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control,
                         .msg_controllen = sizeof(control)};
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(cmsg), &fd, sizeof(int));
    g_assert_cmpint(sendmsg(peer->fd, &msg, 0), ==, strlen(text));
}

char *
bf_test_peer_co_line(BfTestPeer *peer)
{
    for (;;) {
        char buf[2048];
        const char *end = strstr(peer->input->str, "\n");
        ssize_t n = 0;

        if (end != NULL) {
            size_t len = end - peer->input->str;
            char *line = NULL;

            g_assert_cmpint(len, >=, 1);
            g_assert_cmpint(end[-1], ==, '\r');
            line = g_strndup(peer->input->str, len - 1);
            g_string_erase(peer->input, 0, len + 1);
            return line;
        }
        n = bf_channel_co_read(peer->channel, buf, sizeof(buf), NULL);
        if (n <= 0) {
            g_assert_cmpint(peer->input->len, ==, 0);
            return NULL;
        }
        g_string_append_len(peer->input, buf, n);
    }
}

void
bf_test_peer_co_expect(BfTestPeer *peer, const char *line)
{
    g_autofree char *got = bf_test_peer_co_line(peer);

    g_assert_cmpstr(got, ==, line);
}

void
bf_test_peer_co_expect_like(BfTestPeer *peer, const char *pattern)
{
    g_autofree char *got = bf_test_peer_co_line(peer);

    g_assert_nonnull(got);
    if (!g_pattern_match_simple(pattern, got)) {
        g_error("'%s' is not like '%s'", got, pattern);
    }
}

void
bf_test_peer_co_ask(BfTestPeer *peer, const char *text, const char *line)
{
    bf_test_peer_co_send(peer, text);
    bf_test_peer_co_expect(peer, line);
}

void
bf_test_peer_co_negotiate(BfTestPeer *peer)
{
    bf_test_peer_co_expect_like(peer, "{\"QMP\": *}");
    bf_test_peer_co_ask(peer, "{'execute':'qmp_capabilities'}",
                        "{\"return\": {}}");
}
