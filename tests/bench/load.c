// The load generator and the app of the benchmark: one thread, one epoll, no allocation while it measures.
//
//   load serve PORT                                     the app: a connection's first byte says what it does
//   load capture PORT                                   the same behind steering: asks SO_ORIGINAL_DST first
//   load bulk up|down CONNS WARM SPAN HOST PORT
//   load rr SIZE CONNS WARM SPAN HOST PORT              closed loop: an answer sends the next request
//   load cps INFLIGHT WARM SPAN HOST PORT               connect, one byte each way, close
//   load mixed up|down SIZE CONNS WARM SPAN HOST PORT   rr beside one bulk connection
//   load idle CONNS HOST PORT                           opens all, pings all; a line on stdin pings them
//   again
//
// Prints "start" when the load has run for WARM seconds, "end" SPAN seconds later, and then one JSON object:
// only what happened between the two is in it. A connection that fails ends the run with a sentence and
// status 1.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter_ipv4.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 256 << 10, MAX_FD = 1 << 17, MAX_EVENTS = 512, MAX_SAMPLES = 8 << 20 };
enum { ECHO = 'E', SINK = 'S', SOURCE = 'G' };

struct conn {
	uint64_t since;	  // when the request left, or connect() was called
	uint32_t pending; // bytes of the answer that are still to come
	uint32_t backlog; // app: echoed bytes that the socket did not take
	uint8_t mode;
	uint8_t is_up;
};

static struct conn conns[MAX_FD];
static char buffer[CHUNK];
static uint32_t *samples; // ns, in the order of their ends
static size_t sampled;
static int poller;
static struct sockaddr_in target;

static void die(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec at;
	clock_gettime(CLOCK_MONOTONIC, &at);
	return (uint64_t)at.tv_sec * 1000000000 + (uint64_t)at.tv_nsec;
}

static void watch(int fd, uint32_t events, int operation)
{
	struct epoll_event event = {.events = events, .data.fd = fd};
	if (epoll_ctl(poller, operation, fd, &event))
		die("epoll_ctl: %s", strerror(errno));
}

static int new_socket(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
	if (fd < 0)
		die("socket: %s", strerror(errno));
	if (fd >= MAX_FD)
		die("descriptor %d is beyond the table", fd);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
}

// Starts a connection; it is writable when it is up.
static int dial(uint32_t events)
{
	int fd = new_socket();
	conns[fd] = (struct conn){.since = now_ns()};
	if (connect(fd, (struct sockaddr *)&target, sizeof(target)) && errno != EINPROGRESS)
		die("connect: %s", strerror(errno));
	watch(fd, events, EPOLL_CTL_ADD);
	return fd;
}

static const char *failure(int fd)
{
	int error = 0;
	socklen_t length = sizeof(error);
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
	return error ? strerror(error) : "closed by the other side";
}

// Reads once; returns 0 when there is nothing, and ends the run when the connection is over.
static size_t receive(int fd)
{
	ssize_t got = recv(fd, buffer, sizeof(buffer), 0);
	if (got > 0)
		return (size_t)got;
	if (got < 0 && errno == EAGAIN)
		return 0;
	die("a connection broke: %s", got ? strerror(errno) : "closed by the other side");
	return 0;
}

static size_t transmit(int fd, size_t size)
{
	ssize_t put = send(fd, buffer, size, MSG_NOSIGNAL);
	if (put >= 0)
		return (size_t)put;
	if (errno == EAGAIN)
		return 0;
	die("a connection broke: %s", strerror(errno));
	return 0;
}

// ---- the app

static void app_close(int fd)
{
	close(fd); // epoll forgets it
}

static void app_accept(int listener, int is_capture)
{
	for (;;) {
		int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), on = 1;
		if (fd < 0)
			return;
		if (fd >= MAX_FD)
			die("descriptor %d is beyond the table", fd);
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		if (is_capture) {
			struct sockaddr_in meant;
			socklen_t length = sizeof(meant);
			if (getsockopt(fd, SOL_IP, SO_ORIGINAL_DST, &meant, &length) ||
			    ntohs(meant.sin_port) != 9000)
				die("SO_ORIGINAL_DST does not answer what the client dialled");
		}
		conns[fd] = (struct conn){0};
		watch(fd, EPOLLIN, EPOLL_CTL_ADD);
	}
}

// Sends echoed bytes; all that an echo sends is the same byte, so a count is all that has to be kept.
static void app_echo(int fd, struct conn *conn, size_t size)
{
	ssize_t put = send(fd, buffer, size, MSG_NOSIGNAL);
	if (put < 0 && errno != EAGAIN) {
		app_close(fd);
		return;
	}
	size_t left = size - (put < 0 ? 0 : (size_t)put);
	if (left != conn->backlog && !left != !conn->backlog)
		watch(fd, left ? EPOLLOUT : EPOLLIN, EPOLL_CTL_MOD);
	conn->backlog = (uint32_t)left;
}

static void app_serve(int fd, uint32_t events)
{
	struct conn *conn = &conns[fd];
	if (conn->mode == SOURCE) {
		if (events & (EPOLLIN | EPOLLHUP | EPOLLERR) ||
		    (send(fd, buffer, CHUNK, MSG_NOSIGNAL) < 0 && errno != EAGAIN))
			app_close(fd); // the client closes first: nothing but its end can come
		return;
	}
	if (conn->backlog) {
		memset(buffer, ECHO, conn->backlog);
		app_echo(fd, conn, conn->backlog);
		return;
	}
	ssize_t got = recv(fd, buffer, CHUNK, 0);
	if (got <= 0) {
		if (got == 0 || errno != EAGAIN)
			app_close(fd);
		return;
	}
	if (!conn->mode) {
		conn->mode = (uint8_t)buffer[0];
		if (conn->mode == SOURCE)
			watch(fd, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
	}
	if (conn->mode == ECHO)
		app_echo(fd, conn, (size_t)got);
}

static void serve(uint16_t port, int is_capture)
{
	struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(port)};
	int listener = new_socket(), on = 1;
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(listener, (struct sockaddr *)&any, sizeof(any)) || listen(listener, 4096))
		die("port %u: %s", port, strerror(errno));
	watch(listener, EPOLLIN, EPOLL_CTL_ADD);
	printf("ready\n");
	for (;;) {
		struct epoll_event events[MAX_EVENTS];
		int count = epoll_wait(poller, events, MAX_EVENTS, -1);
		for (int i = 0; i < count; i++)
			if (events[i].data.fd == listener)
				app_accept(listener, is_capture);
			else
				app_serve(events[i].data.fd, events[i].events);
	}
}

// ---- the window that is measured

static uint64_t opens_at, ends_at, closed_at, bytes, operations;
static int is_open;

static void plan(double warm, double span)
{
	opens_at = now_ns() + (uint64_t)(warm * 1e9);
	ends_at = opens_at + (uint64_t)(span * 1e9);
}

// Tells whether the run goes on; opens the window in time.
static int runs(uint64_t at)
{
	if (!is_open && at >= opens_at) {
		is_open = 1;
		bytes = operations = sampled = 0;
		uint64_t span = ends_at - opens_at;
		opens_at = at;
		ends_at = at + span;
		printf("start\n");
	}
	return !is_open || at < ends_at;
}

static void sample(uint64_t since, uint64_t at)
{
	operations++;
	if (is_open && since >= opens_at && sampled < MAX_SAMPLES)
		samples[sampled++] = at - since > UINT32_MAX ? UINT32_MAX : (uint32_t)(at - since);
}

static int by_value(const void *a, const void *b)
{
	uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;
	return (left > right) - (left < right);
}

static double quantile_us(double part)
{
	return samples[(size_t)(part * (double)(sampled - 1))] / 1e3;
}

static void check_congestion(int fd)
{
	char name[16] = "";
	socklen_t length = sizeof(name);
	getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &length);
	if (strcmp(name, "cubic"))
		die("the congestion control is %s, not cubic: the routes do not pin it", name);
}

static void report(void)
{
	double span = (double)(closed_at - opens_at) / 1e9;
	printf("{\"seconds\": %.6f, \"bytes\": %llu, \"operations\": %llu", span, (unsigned long long)bytes,
	       (unsigned long long)operations);
	if (sampled) {
		qsort(samples, sampled, sizeof(*samples), by_value);
		printf(", \"p50_us\": %.2f, \"p99_us\": %.2f", quantile_us(0.5), quantile_us(0.99));
	}
	printf("}\n");
}

// ---- loads

static void bulk_event(int fd, uint32_t events)
{
	struct conn *conn = &conns[fd];
	if (events & (EPOLLERR | EPOLLHUP))
		die("a bulk connection broke: %s", failure(fd));
	if (!conn->is_up) {
		conn->is_up = 1;
		check_congestion(fd);
		memset(buffer, conn->mode, sizeof(buffer));
		if (conn->mode == SOURCE) {
			transmit(fd, 1);
			watch(fd, EPOLLIN, EPOLL_CTL_MOD);
			return;
		}
	}
	bytes += conn->mode == SINK ? transmit(fd, CHUNK) : receive(fd);
}

static void request(int fd, size_t size)
{
	memset(buffer, ECHO, size);
	conns[fd].pending = (uint32_t)size;
	if (transmit(fd, size) != size)
		die("a request of %zu bytes does not fit into an empty socket", size);
}

static void rr_event(int fd, uint32_t events, size_t size)
{
	struct conn *conn = &conns[fd];
	if (events & (EPOLLERR | EPOLLHUP))
		die("a round-trip connection broke: %s", failure(fd));
	if (!conn->is_up) {
		conn->is_up = 1;
		check_congestion(fd);
		watch(fd, EPOLLIN, EPOLL_CTL_MOD);
	} else {
		size_t got = receive(fd);
		if (got > conn->pending)
			die("more came back than was sent");
		conn->pending -= (uint32_t)got;
		if (conn->pending)
			return;
		uint64_t at = now_ns();
		sample(conn->since, at);
		conn->since = at;
	}
	if (conn->pending == 0) {
		conn->since = now_ns();
		request(fd, size);
	}
}

static void cps_event(int fd, uint32_t events)
{
	struct conn *conn = &conns[fd];
	if (events & EPOLLERR)
		die("a connection failed: %s", failure(fd));
	if (!conn->is_up && events & EPOLLOUT) {
		conn->is_up = 1;
		request(fd, 1);
	}
	if (events & EPOLLIN && receive(fd)) {
		sample(conn->since, now_ns());
		close(fd);
		dial(EPOLLIN | EPOLLOUT | EPOLLET);
	}
}

enum kind { BULK, RR, CPS };

static void run(enum kind kind, uint8_t mode, size_t size, int count, double warm, double span)
{
	for (int i = 0; i < count; i++) {
		int fd = dial(kind == CPS ? EPOLLIN | EPOLLOUT | EPOLLET : EPOLLOUT);
		conns[fd].mode = mode;
	}
	plan(warm, span);
	while (runs(now_ns())) {
		struct epoll_event events[MAX_EVENTS];
		int ready = epoll_wait(poller, events, MAX_EVENTS, 10);
		for (int i = 0; i < ready; i++)
			if (kind == BULK)
				bulk_event(events[i].data.fd, events[i].events);
			else if (kind == RR)
				rr_event(events[i].data.fd, events[i].events, size);
			else
				cps_event(events[i].data.fd, events[i].events);
	}
	closed_at = now_ns();
	printf("end\n");
	if (kind == BULK ? !bytes : !sampled)
		die("nothing came through within %.1f s", span);
}

// The bulk stream of `mixed` is a process of its own: its copies must not stand in the way of the round
// trips.
static void beside(uint8_t mode, size_t size, int count, double warm, double span)
{
	int result[2];
	if (pipe(result))
		die("pipe: %s", strerror(errno));
	pid_t child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		poller = epoll_create1(EPOLL_CLOEXEC);
		if (!freopen("/dev/null", "w", stdout))
			die("/dev/null: %s", strerror(errno));
		run(BULK, mode, 0, 1, warm, span);
		double rate = (double)bytes / (double)(closed_at - opens_at);
		if (write(result[1], &rate, sizeof(rate)) != sizeof(rate))
			die("pipe: %s", strerror(errno));
		_exit(0);
	}
	run(RR, ECHO, size, count, warm, span);
	double rate = 0;
	int status = 0;
	close(result[1]);
	if (read(result[0], &rate, sizeof(rate)) != sizeof(rate) || waitpid(child, &status, 0) < 0 || status)
		die("the bulk stream beside the round trips failed");
	bytes = (uint64_t)(rate * (double)(closed_at - opens_at));
}

static void ping_all(int first, int count, int in_flight)
{
	uint64_t since = now_ns();
	int sent = 0, back = 0;
	struct epoll_event events[MAX_EVENTS];
	while (back < count) {
		for (; sent < count && sent - back < in_flight; sent++)
			request(first + sent, 1);
		int ready = epoll_wait(poller, events, MAX_EVENTS, 15000);
		if (ready <= 0)
			die("only %d of %d idle connections answered", back, count);
		for (int i = 0; i < ready; i++)
			if (receive(events[i].data.fd) == 1)
				back++;
	}
	printf("{\"connections\": %d, \"seconds\": %.6f}\n", count, (double)(now_ns() - since) / 1e9);
}

static void idle(int count)
{
	enum { IN_FLIGHT = 64 };
	int first = -1, dialled = 0, up = 0;
	struct epoll_event events[MAX_EVENTS];
	while (up < count) {
		for (; dialled < count && dialled - up < IN_FLIGHT; dialled++) {
			int fd = dial(EPOLLOUT);
			first = first < 0 ? fd : first;
			if (fd != first + dialled)
				die("descriptors do not come in order");
		}
		int ready = epoll_wait(poller, events, MAX_EVENTS, 15000);
		if (ready <= 0)
			die("only %d of %d connections came up", up, count);
		for (int i = 0; i < ready; i++) {
			int fd = events[i].data.fd;
			if (events[i].events & (EPOLLERR | EPOLLHUP))
				die("connection %d failed: %s", up, failure(fd));
			if (!conns[fd].is_up) {
				conns[fd].is_up = 1;
				watch(fd, EPOLLIN, EPOLL_CTL_MOD);
				request(fd, 1);
			} else if (receive(fd)) {
				up++;
			}
		}
	}
	ping_all(first, count, IN_FLIGHT);
	while (fgets(buffer, sizeof(buffer), stdin))
		ping_all(first, count, IN_FLIGHT);
}

// ---- the command line

static int arguments;
static char **argument;

static const char *next(const char *what)
{
	if (!arguments)
		die("load: %s is missing", what);
	arguments--;
	return *argument++;
}

static double number(const char *what)
{
	const char *text = next(what);
	char *end;
	double value = strtod(text, &end);
	if (*end || end == text || value < 0)
		die("load: %s is not a number: %s", what, text);
	return value;
}

static uint8_t direction(void)
{
	const char *text = next("up or down");
	if (strcmp(text, "up") && strcmp(text, "down"))
		die("load: %s is neither up nor down", text);
	return text[0] == 'u' ? SINK : SOURCE;
}

static void where(void)
{
	const char *host = next("HOST");
	target.sin_family = AF_INET;
	if (inet_pton(AF_INET, host, &target.sin_addr) != 1)
		die("load: %s is not an IPv4 address", host);
	target.sin_port = htons((uint16_t)number("PORT"));
}

static size_t request_size(void)
{
	size_t size = (size_t)number("SIZE");
	if (size < 1 || size > 65536)
		die("load: SIZE is between 1 and 65536");
	return size;
}

static void command(const char *name)
{
	uint8_t mode = ECHO;
	size_t size = 1;
	if (!strcmp(name, "serve") || !strcmp(name, "capture"))
		serve((uint16_t)number("PORT"), name[0] == 'c');
	if (!strcmp(name, "bulk") || !strcmp(name, "mixed"))
		mode = direction();
	if (!strcmp(name, "rr") || !strcmp(name, "mixed"))
		size = request_size();
	int count = (int)number("CONNS");
	if (!strcmp(name, "idle")) {
		where();
		idle(count);
		return;
	}
	double warm = number("WARM"), span = number("SPAN");
	where();
	if (!strcmp(name, "bulk"))
		run(BULK, mode, 0, count, warm, span);
	else if (!strcmp(name, "rr"))
		run(RR, ECHO, size, count, warm, span);
	else if (!strcmp(name, "cps"))
		run(CPS, ECHO, 1, count, warm, span);
	else if (!strcmp(name, "mixed"))
		beside(mode, size, count, warm, span);
	else
		die("load: %s is no command", name);
	report();
}

int main(int count, char **values)
{
	struct rlimit files;
	setvbuf(stdout, NULL, _IOLBF, 0);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	poller = epoll_create1(EPOLL_CLOEXEC);
	samples = malloc(MAX_SAMPLES * sizeof(*samples));
	arguments = count - 1;
	argument = values + 1;
	command(next("a command"));
	return 0;
}
