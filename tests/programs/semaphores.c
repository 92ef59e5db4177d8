/* semaphores: holds System V semaphores and message queues, and after each move looks whether all is as it was. Prints the ids
 * of a set and a queue, and then how often it has moved; at SIGTERM exits with 7 if all can be used to the end.
 *
 * a set of three, one of which a thread waits for
 * a queue with messages of several types, and a large one; an empty queue, on which a thread waits
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>

#include "moves.h"

#define LARGE 8000

static key_t key;
static int set, queue, answers;
static struct msqid_ds queue_was;
static struct semid_ds set_was;

union semun {
    int val;
    struct semid_ds *buf;
    unsigned short *array;
};

struct message {
    long type;
    char text[LARGE];
};

static void send(int to, long type, const char *text, size_t size)
{
    struct message message = {.type = type};
    strncpy(message.text, text, LARGE);
    need(msgsnd(to, &message, size, IPC_NOWAIT) == 0, "msgsnd");
}

static void *wait_for_semaphore(void *unused)
{
    struct sembuf down = {.sem_num = 2, .sem_op = -1};
    need(semop(set, &down, 1) == 0, "waiting for a semaphore");
    return unused;
}

static void *wait_for_answer(void *unused)
{
    struct message message;
    need(msgrcv(answers, &message, LARGE, 5, 0) == 3 && strcmp(message.text, "go") == 0, "waiting for a message");
    return unused;
}

static void hold(void)
{
    unsigned short values[3] = {3, 700, 0};
    key = (key_t)(0xfb000000u | (unsigned)getpid());
    set = semget(key, 3, IPC_CREAT | IPC_EXCL | 0640);
    need(set >= 0 && semctl(set, 0, SETALL, (union semun){.array = values}) == 0, "semget");
    struct sembuf up = {.sem_num = 0, .sem_op = 2};
    need(semop(set, &up, 1) == 0, "semop");
    queue = msgget(key, IPC_CREAT | IPC_EXCL | 0604);
    answers = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
    need(queue >= 0 && answers >= 0, "msgget");
    send(queue, 7, "first", 6);
    send(queue, 9, "second", 7);
    send(queue, 7, "", 0);
    send(queue, 1l << 40, "large", LARGE);
    send(answers, 1, "", 0);
    need(msgrcv(answers, &(struct message){0}, LARGE, 0, 0) == 0, "msgrcv");
    need(msgctl(queue, IPC_STAT, &queue_was) == 0, "IPC_STAT");
    queue_was.msg_qbytes = 10000;
    queue_was.msg_perm.uid = 65534;
    need(msgctl(queue, IPC_SET, &queue_was) == 0, "IPC_SET");
    need(semctl(set, 0, IPC_STAT, (union semun){.buf = &set_was}) == 0, "IPC_STAT of the set");
}

static void check(void)
{
    unsigned short values[3];
    struct semid_ds set_is;
    struct msqid_ds queue_is;
    need(semget(key, 0, 0) == set && msgget(key, 0) == queue, "what the key leads to");
    need(semctl(set, 0, GETALL, (union semun){.array = values}) == 0, "GETALL");
    need(values[0] == 5 && values[1] == 700 && values[2] == 0, "the values");
    need(semctl(set, 0, GETPID) == getpid(), "who used it");
    need(semctl(set, 0, IPC_STAT, (union semun){.buf = &set_is}) == 0, "IPC_STAT of the set");
    need(set_is.sem_perm.mode == set_was.sem_perm.mode && set_is.sem_perm.uid == set_was.sem_perm.uid, "the set's owner");
    need(msgctl(queue, IPC_STAT, &queue_is) == 0, "IPC_STAT");
    need(queue_is.msg_qbytes == 10000 && queue_is.msg_qnum == 4 && queue_is.msg_perm.uid == 65534, "the queue");
    need(queue_is.msg_perm.mode == queue_was.msg_perm.mode && queue_is.__msg_cbytes == LARGE + 13, "the queue");
}

static void use_up(void)
{
    static const struct {
        long type;
        size_t size;
        const char *text;
    } wanted[] = {{9, 7, "second"}, {7, 6, "first"}, {7, 0, ""}, {1l << 40, LARGE, "large"}};
    for (int i = 0; i < 4; i++) {
        struct message message = {0};
        need(msgrcv(queue, &message, LARGE, i == 0 ? 9 : 0, IPC_NOWAIT) == (ssize_t)wanted[i].size, "msgrcv");
        need(message.type == wanted[i].type && strcmp(message.text, wanted[i].text) == 0, "a message");
    }
    need(semctl(set, 0, IPC_RMID) == 0 && msgctl(queue, IPC_RMID, NULL) == 0 && msgctl(answers, IPC_RMID, NULL) == 0,
         "removing them");
}

int main(void)
{
    pthread_t threads[2];
    signal(SIGTERM, end);
    hold();
    pthread_create(&threads[0], NULL, wait_for_semaphore, NULL);
    pthread_create(&threads[1], NULL, wait_for_answer, NULL);
    printf("%d\n%d\n", set, queue);
    check_moves(check);
    struct sembuf up = {.sem_num = 2, .sem_op = 1};
    need(semop(set, &up, 1) == 0, "semop");
    send(answers, 5, "go", 3);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    use_up();
    return 7;
}
