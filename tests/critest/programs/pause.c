/* Sleep until SIGTERM or SIGINT. */
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
