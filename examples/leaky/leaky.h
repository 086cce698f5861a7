/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef LEAKY_H
#define LEAKY_H

int buffers_create(void);
void buffers_destroy(void);

#endif
