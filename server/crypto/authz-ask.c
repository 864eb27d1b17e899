/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Questions to rules that may take for ever: who asks goes on when a limit is
 * reached or nobody wants to know any more, and the question stays behind on
 * its thread.
 */
#include "crypto/authz.h"

#include <errno.h>

#include "core/error.h"

/* Nobody needs to be there any more when it is answered. */
typedef struct Question {
    BfAuthz *authz; /* a reference */
    char *identity; /* owned */
    bool allowed;
    GError *error; /* (nullable) owned */
} Question;

static void
question_free(void *arg)
{
    Question *question = arg;

    bf_authz_unref(question->authz);
    g_free(question->identity);
    g_clear_error(&question->error);
    g_free(question);
}

static void
ask_rules(void *arg)
{
    Question *question = arg;

    question->allowed =
        bf_authz_check(question->authz, question->identity, &question->error);
}

static void
set_unanswered(int err, GError **error)
{
    switch (err) {
    case ETIMEDOUT:
        bf_set_error(error, "it gave no answer in time; if it asks PAM, look "
                            "what the modules of that service wait for");
        break;
    case EBUSY:
        bf_set_error(error, "too many questions wait for its answers");
        break;
    default:
        bf_set_errno(error, err, "it gave no answer");
        break;
    }
}

bool
bf_authz_co_ask(BfAuthz *authz, const char *identity, BfPoolLane *lane,
                uint64_t timeout_ns, BfCancel *cancel, GError **error)
{
    Question *question = g_new0(Question, 1);
    bool allowed = false;
    int ret = 0;

    question->authz = bf_authz_ref(authz);
    question->identity = g_strdup(identity);
    ret = bf_co_offload_cancel(lane, ask_rules, question, question_free,
                               timeout_ns, cancel);
    if (ret < 0) {
        set_unanswered(-ret, error);
        return false;
    }
    allowed = question->allowed;
    if (!allowed) {
        g_propagate_error(error, g_steal_pointer(&question->error));
    }
    question_free(question);
    return allowed;
}
