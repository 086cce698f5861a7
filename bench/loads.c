/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Loads of the allocator: loads KIND COUNT PROCESSES. Each process does COUNT operations; prints
 * nanoseconds of CPU time an operation, children's included, as the mean over the processes. CPU
 * time and not time, so that what else runs on the machine disturbs little.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int pair[2];
static char name[64];

static int make_pipe(void)
{
	int ends[2];

	return pipe(ends) || close(ends[0]) || close(ends[1]);
}

static int make_eventfd(void)
{
	int fd = eventfd(0, 0);

	return fd < 0 || close(fd);
}

static int pass_message(void)
{
	char message[512] = "";

	return write(pair[0], message, sizeof(message)) != sizeof(message) ||
	       read(pair[1], message, sizeof(message)) != sizeof(message);
}

static int make_file(void)
{
	int fd = open(name, O_CREAT | O_RDWR | O_EXCL, 0600);

	return fd < 0 || close(fd) || unlink(name);
}

static int make_process(void)
{
	pid_t child = fork();
	int status;

	if (child == 0)
		_exit(0);
	return child < 0 || waitpid(child, &status, 0) != child || status;
}

static double cpu_ns(void)
{
	struct timespec own;
	struct rusage children;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &own);
	getrusage(RUSAGE_CHILDREN, &children);
	return (own.tv_sec + children.ru_utime.tv_sec + children.ru_stime.tv_sec) * 1e9 +
	       (children.ru_utime.tv_usec + children.ru_stime.tv_usec) * 1e3 + own.tv_nsec;
}

static const struct {
	const char *name;
	int (*operation)(void);
} kinds[] = {
	{ "pipe", make_pipe }, { "eventfd", make_eventfd }, { "message", pass_message },
	{ "file", make_file }, { "fork", make_process },
};

int main(int argc, char **argv)
{
	int (*operation)(void) = NULL;
	long count, processes;
	double *ns, sum = 0;

	if (argc != 4)
		return 2;
	for (unsigned int i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (!strcmp(argv[1], kinds[i].name))
			operation = kinds[i].operation;
	}
	count = atol(argv[2]);
	processes = atol(argv[3]);
	ns = mmap(NULL, processes * sizeof(*ns), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		  -1, 0);
	if (!operation || ns == MAP_FAILED)
		return 2;
	for (long process = 0; process < processes; process++) {
		double start;

		if (fork())
			continue;
		snprintf(name, sizeof(name), "load-%ld", process);
		if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
			_exit(1);
		start = cpu_ns();
		for (long i = 0; i < count; i++) {
			if (operation())
				_exit(1);
		}
		ns[process] = (cpu_ns() - start) / count;
		_exit(0);
	}
	for (long process = 0; process < processes; process++) {
		int status;

		if (wait(&status) < 0 || status)
			return 1;
	}
	for (long process = 0; process < processes; process++)
		sum += ns[process];
	printf("%.1f\n", sum / processes);
	return 0;
}
