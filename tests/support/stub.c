/* SPDX-License-Identifier: Apache-2.0 */
/* Looks up names by the C library that it was built with: `stub NAME...`. For each a line with the addresses
 * in the library's order, or with the error's text; the exit status is the number of names that were not
 * found.
 */
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>

static int look_up(const char *name)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
	char text[64];
	int error = getaddrinfo(name, 0, &hints, &found);

	if (error) {
		printf("%s: %s\n", name, gai_strerror(error));
		return 1;
	}
	printf("%s:", name);
	for (struct addrinfo *each = found; each; each = each->ai_next) {
		getnameinfo(each->ai_addr, each->ai_addrlen, text, sizeof(text), 0, 0, NI_NUMERICHOST);
		printf(" %s", text);
	}
	printf("\n");
	freeaddrinfo(found);
	return 0;
}

int main(int count, char **words)
{
	int missing = 0;

	for (int at = 1; at < count; at++)
		missing += look_up(words[at]);
	return missing;
}
