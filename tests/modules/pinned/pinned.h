/* SPDX-License-Identifier: GPL-2.0-only */
int pinned_join(int number);
