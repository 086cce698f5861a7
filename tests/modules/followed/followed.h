/* SPDX-License-Identifier: GPL-2.0-only */
void followed_lib_take(int count);
