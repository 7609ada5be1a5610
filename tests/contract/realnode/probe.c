/* Make each system call that an argument describes (number:argument:...), and print its errno, or 0. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		long value[7] = {0};
		char *next = argv[i];
		for (int n = 0; n < 7 && *next; n++) {
			value[n] = strtol(next, &next, 0);
			next += *next == ':';
		}
		errno = 0;
		long result = syscall(value[0], value[1], value[2], value[3], value[4], value[5], value[6]);
		printf("%d\n", result == -1 ? errno : 0);
	}
	return 0;
}
