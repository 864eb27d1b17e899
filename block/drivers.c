/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The table of drivers. A new driver is one line here and one in meson.build.
 */
#include "block/driver.h"

static const BfDriver *const drivers[] = {
    &bf_driver_copy_before_write,
    &bf_driver_copy_on_read,
    &bf_driver_fault,
    &bf_driver_file,
    &bf_driver_host_device,
    &bf_driver_nbd,
    &bf_driver_null_aio,
    &bf_driver_null_co,
    &bf_driver_quorum,
    &bf_driver_raw,
    &bf_driver_snapshot_access,
    &bf_driver_throttle,
};

const BfDriver *
bf_driver_find(BfBlockdevDriver kind)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(drivers); i++) {
        if (drivers[i]->kind == kind) {
            return drivers[i];
        }
    }
    return NULL;
}
