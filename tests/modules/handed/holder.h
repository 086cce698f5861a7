/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef HOLDER_H
#define HOLDER_H

/* Takes memory into a global variable; it is freed when the holder is unloaded. */
void holder_take(void *memory);

#endif
