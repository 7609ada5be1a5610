/* Print the effective user ID: run from a setuid file, it shows whether no_new_privs is set. */
#include <stdio.h>
#include <unistd.h>

int main(void)
{
	printf("Effective uid: %d\n", (int)geteuid());
	return 0;
}
