/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef PLANTED_H
#define PLANTED_H

int leak_slab(void);
void leak_areas(void);
void be_innocent(void);
void stay_innocent(void);

#endif
