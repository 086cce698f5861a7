/* SPDX-License-Identifier: GPL-2.0-only */
/* Makes and closes pipes: nine slab allocations each. Prints nanoseconds a pipe. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	long count = argc > 1 ? atol(argv[1]) : 100000;
	struct timespec start, end;
	int ends[2];

	clock_gettime(CLOCK_MONOTONIC, &start);
	for (long i = 0; i < count; i++) {
		if (pipe(ends))
			return 1;
		close(ends[0]);
		close(ends[1]);
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("%.1f\n", ((end.tv_sec - start.tv_sec) * 1e9 + end.tv_nsec - start.tv_nsec) / count);
	return 0;
}
