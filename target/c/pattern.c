/* Memory whose every byte follows from its place and a seed. */
#include "target.h"

uint64_t random_next(uint64_t *state)
{
    uint64_t mixed = *state += 0x9e3779b97f4a7c15u;
    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111ebu;
    return mixed ^ mixed >> 31;
}

size_t random_below(uint64_t *state, size_t bound)
{
    return random_next(state) % bound;
}

static uint64_t word(uint64_t seed, size_t index)
{
    return seed ? (seed ^ index << 48) * 0x9e3779b97f4a7c15u | 1 : 0;
}

void fill_page(void *page, uint64_t seed)
{
    uint64_t *words = page;
    for (size_t index = 0; index < PAGE_WORDS; index++)
        words[index] = word(seed, index);
}

ptrdiff_t wrong_word(const void *page, uint64_t seed)
{
    const uint64_t *words = page;
    for (size_t index = 0; index < PAGE_WORDS; index++)
        if (words[index] != word(seed, index))
            return (ptrdiff_t)index;
    return -1;
}

void check_page(const void *page, uint64_t seed, const char *what)
{
    ptrdiff_t index = wrong_word(page, seed);
    if (index < 0)
        return;
    const uint64_t *words = page;
    fail("%s: word %td of the page at %p is %#llx, not %#llx", what, index, page, (unsigned long long)words[index],
         (unsigned long long)word(seed, (size_t)index));
}
