/* The parts of the workload `mappings`. */
#ifndef MAPPINGS_H
#define MAPPINGS_H

#include "target.h"

/* Mappings of every kind, whose content and attributes stay as they are. */
void kinds_create(void);
void kinds_check(uint64_t round);
void kinds_remove(void);

/* Mappings that system calls change all the time. */
void changes_create(void);
void changes_step(uint64_t *random);
void changes_check_all(void);

/* Address space only: nothing can be read or written there. */
char *reserve(size_t pages);
void reserve_at(char *start, size_t pages);

#endif
