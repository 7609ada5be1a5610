/* Does nothing until it is asked to end. */
#include <signal.h>
#include <unistd.h>

static void leave(int signo)
{
	(void)signo;
	_exit(0);
}

int main(void)
{
	signal(SIGTERM, leave);
	signal(SIGINT, leave);
	for (;;)
		pause();
}
