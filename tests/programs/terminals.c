/* terminals: pseudo-terminals whose both ends are here, in every state that one can be in, with something on its way in
 * each. Looks after each move whether all is as it was, takes out what waits and puts it in anew; ends with 7 at SIGTERM. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include "moves.h"

#define TYPED "changed\x7f\rno line end\x04\x04q\x16\nq\x16\x04\npart \x16\x02 of one"

static int lines, lines_far, lines_dup, lines_second, bytes, bytes_far, closed, hung, never, watched, watched_far;
static int own, own_far, terminal;
static char names[7][64];
static int seen_by_reader;

static int open_master(int name)
{
    int fd = posix_openpt(O_RDWR | O_NOCTTY);
    need(fd >= 0 && grantpt(fd) == 0 && unlockpt(fd) == 0, "a master");
    need(ptsname_r(fd, names[name], sizeof names[name]) == 0, "its slave's name");
    return fd;
}

static int open_slave(int name, int flags)
{
    int fd = open(names[name], flags | O_NOCTTY);
    need(fd >= 0, names[name]);
    return fd;
}

static void set(int fd, void (*change)(struct termios *))
{
    struct termios settings;
    need(tcgetattr(fd, &settings) == 0, "settings");
    change(&settings);
    need(tcsetattr(fd, TCSANOW, &settings) == 0, "other settings");
}

static void canonical(struct termios *settings)
{
    settings->c_lflag = ISIG | ICANON | ECHO | ECHOE | ECHOK | IEXTEN;
    settings->c_cc[VINTR] = 7;
}

static void raw(struct termios *settings)
{
    cfmakeraw(settings);
    settings->c_cc[VMIN] = 5;
    cfsetspeed(settings, B9600);
}

/* So raw that what was typed would be different if it were typed once more. */
static void translating(struct termios *settings)
{
    settings->c_iflag = ICRNL | ISTRIP;
    settings->c_oflag = OPOST | ONLCR;
    settings->c_lflag = ECHO | ISIG;
}

static void give(int fd, const void *what, size_t size)
{
    need(write(fd, what, size) == (ssize_t)size, "writing to a terminal");
}

static void wait_for(int fd, int count)
{
    int waiting = 0;
    for (int i = 0; i < 5000 && waiting < count; i++, usleep(1000))
        need(ioctl(fd, FIONREAD, &waiting) == 0, "how much waits");
    need(waiting == count, "as much as was written waits");
}

static void take(int fd, const void *expected, size_t size, const char *what)
{
    static char found[8192];
    size_t at = 0;
    ssize_t got;
    while (at < size && (got = read(fd, found + at, size - at)) > 0)
        at += got;
    need(at == size && memcmp(found, expected, size) == 0, what);
}

static void take_line(int fd, const char *expected, size_t size)
{
    char found[256];
    need(read(fd, found, sizeof found) == (ssize_t)size && memcmp(found, expected, size) == 0, "a line of its own");
}

static unsigned char all[256];

static void fill(void)
{
    give(lines, TYPED, sizeof TYPED - 1);
    wait_for(lines_far, 23);
    give(lines_far, "for the master\n", 15);
    set(bytes, raw);
    give(bytes, all, 256);
    wait_for(bytes_far, 256);
    give(bytes_far, all, 256);
    set(bytes, translating);
    int far = open_slave(2, O_RDWR);
    set(far, raw);
    give(closed, "lost in thought", 15);
    wait_for(far, 15);
    give(far, "last words", 10);
    close(far);
    give(own, "to whom it controls\n", 20);
}

/* What was echoed, and then what the slave wrote: it may come in the midst of an echo that is shown by and by. */
static void take_echo(void)
{
    static const char *echo = "changed\b \b\r\nno line endq^J";
    char found[512];
    ssize_t got, all_of_it = 0;
    while ((got = read(lines, found + all_of_it, sizeof found - all_of_it)) > 0)
        all_of_it += got;
    need(got < 0 && errno == EAGAIN, "no waiting for more");
    need(memmem(found, all_of_it, "for the master\r\n", 16) && !memcmp(found, echo, 22), "the echo");
    need(all_of_it == 61, "the echo once");
}

static void drain(void)
{
    char found[8];
    take_line(lines_dup, "change\n", 7);
    take_line(lines_second, "no line end", 11);
    take_line(lines_far, "", 0);
    take_line(lines_far, "q\nq\x04\n", 5);
    give(lines, "\n", 1);
    take_line(lines_far, "part \x02 of one\n", 14);
    take_echo();
    take(bytes_far, all, 256, "every byte that was typed");
    for (int left = 256; left > 0;) {
        unsigned char packet[300];
        ssize_t got = read(bytes, packet, sizeof packet);
        need(got > 1 && packet[0] == TIOCPKT_DATA, "a packet of data");
        need(memcmp(packet + 1, all + 256 - left, got - 1) == 0, "every byte that was written");
        left -= got - 1;
    }
    int locked = 0;
    need(ioctl(closed, TIOCGPTLCK, &locked) == 0 && locked, "a lock");
    need(open(names[2], O_RDWR | O_NOCTTY) < 0 && errno == EIO, "a locked slave");
    take(closed, "last words", 10, "the last words of a closed slave");
    need(read(closed, found, 1) < 0 && errno == EIO, "the end behind them");
    need(unlockpt(closed) == 0, "unlocking");
    int far = open_slave(2, O_RDWR);
    take(far, "lost in thought", 15, "what nobody has read yet");
    close(far);
    take_line(terminal, "to whom it controls\n", 20);
}

static void lock(void)
{
    int yes = 1;
    need(ioctl(closed, TIOCSPTLCK, &yes) == 0, "locking");
}

static void check_settings(void)
{
    struct termios settings;
    struct winsize window;
    int yes = 0;
    need(tcgetattr(lines_far, &settings) == 0 && settings.c_cc[VINTR] == 7, "a character of its own");
    need(settings.c_lflag == (ISIG | ICANON | ECHO | ECHOE | ECHOK | IEXTEN), "canonical settings");
    need(ioctl(lines_far, TIOCGWINSZ, &window) == 0 && window.ws_row == 17 && window.ws_col == 71 && window.ws_xpixel == 5,
         "the window's size");
    need(tcgetattr(bytes, &settings) == 0 && settings.c_iflag == (ICRNL | ISTRIP) && settings.c_cc[VMIN] == 5,
         "settings without lines");
    need(cfgetospeed(&settings) == B9600, "the speed");
    need(ioctl(bytes, TIOCGPKT, &yes) == 0 && yes, "packet mode");
    need(ioctl(bytes_far, TIOCGEXCL, &yes) == 0 && yes, "exclusiveness");
    need((fcntl(lines, F_GETFL) & (O_ACCMODE | O_NONBLOCK)) == (O_RDWR | O_NONBLOCK), "a master's flags");
    need((fcntl(lines_second, F_GETFL) & (O_ACCMODE | O_NONBLOCK)) == O_RDONLY, "a slave's flags");
    need(fcntl(lines_dup, F_SETFL, O_NONBLOCK) == 0 && fcntl(lines_far, F_GETFL) & O_NONBLOCK, "one open file, two numbers");
    need(fcntl(lines_far, F_SETFL, 0) == 0 && fcntl(lines, F_GETFL) & O_NONBLOCK, "the master's flags are its own");
}

static void check_names(void)
{
    int masters[] = {lines, bytes, closed, never, watched, own};
    int slaves[] = {lines_far, bytes_far, -1, -1, watched_far, own_far};
    struct stat by_name, by_number;
    char name[64];
    for (int i = 0; i < 6; i++) {
        need(ptsname_r(masters[i], name, sizeof name) == 0 && strcmp(name, names[i]) == 0, "the name that it had");
        if (slaves[i] < 0)
            continue;
        need(ttyname_r(slaves[i], name, sizeof name) == 0 && strcmp(name, names[i]) == 0, "the name of its slave");
        need(stat(names[i], &by_name) == 0 && fstat(slaves[i], &by_number) == 0, "a slave's status");
        need(by_name.st_rdev == by_number.st_rdev && by_name.st_ino == by_number.st_ino, "the slave under its name");
    }
    need(fstat(lines_far, &by_number) == 0 && (by_number.st_mode & 0777) == 0604, "the mode of its slave");
}

static void check_watched(void)
{
    char found[8];
    int before = __atomic_load_n(&seen_by_reader, __ATOMIC_SEQ_CST);
    give(watched_far, "x", 1);
    for (int i = 0; i < 5000 && __atomic_load_n(&seen_by_reader, __ATOMIC_SEQ_CST) == before; i++)
        usleep(1000);
    need(__atomic_load_n(&seen_by_reader, __ATOMIC_SEQ_CST) == before + 1, "whoever polls sees it");
    need(read(hung, found, 8) == 0, "the end of a terminal that has hung up");
    need(write(hung, "x", 1) < 0 && errno == EIO, "nobody who reads what is written there");
    struct pollfd one = {.fd = never, .events = POLLIN};
    need(poll(&one, 1, 0) == 0, "nothing from a slave that was never opened");
    need(tcgetsid(own_far) == getsid(0) && tcgetpgrp(own_far) == getpgrp(), "the controlling terminal");
}

static void check(void)
{
    check_settings();
    check_names();
    check_watched();
    drain();
    fill();
    lock();
}

static void *watch(void *nothing)
{
    char found[8];
    struct pollfd one = {.fd = watched, .events = POLLIN};
    for (;;) {
        need(poll(&one, 1, -1) == 1 && one.revents == POLLIN, "waiting for the watched terminal");
        need(read(watched, found, 8) == 1, "one byte of it");
        __atomic_add_fetch(&seen_by_reader, 1, __ATOMIC_SEQ_CST);
    }
    return nothing;
}

static void no_echo(struct termios *settings)
{
    settings->c_lflag &= ~ECHO;
}

int main(void)
{
    struct winsize window = {17, 71, 5, 6};
    pthread_t reader;
    int yes = 1;
    signal(SIGTERM, end);
    signal(SIGHUP, SIG_IGN);
    for (int i = 0; i < 256; i++)
        all[i] = i;
    int spare = open_master(6);
    lines = open_master(0), lines_far = open_slave(0, O_RDWR), lines_second = open_slave(0, O_RDONLY);
    set(lines, canonical);
    need(ioctl(lines, TIOCSWINSZ, &window) == 0, "setting the window's size");
    need(fcntl(lines, F_SETFL, O_NONBLOCK) == 0 && fchmod(lines_far, 0604) == 0, "a flag and a mode");
    lines_dup = fcntl(lines_far, F_DUPFD, 100);
    bytes = open_master(1), bytes_far = open_slave(1, O_RDWR);
    set(bytes, raw);
    need(ioctl(bytes_far, TIOCEXCL) == 0 && ioctl(bytes, TIOCPKT, &yes) == 0, "exclusiveness and packet mode");
    closed = open_master(2), never = open_master(3);
    watched = open_master(4), watched_far = open_slave(4, O_RDWR);
    set(watched, raw);
    own = open_master(5), own_far = open_slave(5, O_RDWR);
    set(own, no_echo);
    need(setsid() > 0 || getsid(0) == getpid(), "leading a session");
    need(ioctl(own_far, TIOCSCTTY, 0) == 0 && (terminal = open("/dev/tty", O_RDWR)) >= 0, "a controlling terminal");
    hung = open_slave(6, O_RDWR);
    close(spare);
    fill();
    lock();
    need(pthread_create(&reader, NULL, watch, NULL) == 0, "a thread");
    check_moves(check);
    return 7;
}
