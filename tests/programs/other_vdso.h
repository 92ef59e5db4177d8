/* Makes the vDSO of this process one of another build: another build id, and the __vdso_ functions at other places, where
 * each leads to its old one. (Their second names stay where they are: a libc has noted them.)
 */
#define _GNU_SOURCE
#include <elf.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/* Where the vDSO is that the kernel has mapped, and its size; NULL if it has not. */
static unsigned char *kernels_vdso(size_t *size)
{
    char line[512];
    unsigned long start = 0, end = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && fgets(line, sizeof line, maps))
        if (strstr(line, "[vdso]") && sscanf(line, "%lx-%lx", &start, &end) == 2)
            break;
    if (maps)
        fclose(maps);
    *size = end - start;
    return (unsigned char *)start;
}

static Elf64_Sym *vdso_symbols(unsigned char *image, char **names)
{
    Elf64_Ehdr *header = (void *)image;
    Elf64_Phdr *segments = (void *)(image + header->e_phoff);
    Elf64_Sym *symbols = NULL;
    for (int i = 0; i < header->e_phnum; i++)
        if (segments[i].p_type == PT_DYNAMIC)
            for (Elf64_Dyn *entry = (void *)(image + segments[i].p_offset); entry->d_tag != DT_NULL; entry++) {
                if (entry->d_tag == DT_SYMTAB)
                    symbols = (void *)(image + entry->d_un.d_ptr);
                if (entry->d_tag == DT_STRTAB)
                    *names = (char *)(image + entry->d_un.d_ptr);
            }
    return symbols;
}

/* Where the function of that name is. */
static __attribute__((unused)) void *vdso_function(unsigned char *image, const char *name)
{
    char *names = NULL;
    Elf64_Sym *symbols = vdso_symbols(image, &names);
    for (int i = 1; symbols && (char *)(symbols + i) < names; i++)
        if (strcmp(names + symbols[i].st_name, name) == 0)
            return image + symbols[i].st_value;
    return NULL;
}

/* Returns 1 if it worked. */
static int become_another_build(void)
{
    size_t size;
    unsigned char *image = kernels_vdso(&size);
    if (!image || mprotect(image, size, PROT_READ | PROT_WRITE | PROT_EXEC) != 0)
        return 0;
    char *names = NULL;
    Elf64_Sym *symbols = vdso_symbols(image, &names);
    size_t place = size;
    for (int i = 1; symbols && (char *)(symbols + i) < names; i++) {
        if (strncmp(names + symbols[i].st_name, "__vdso_", 7) != 0)
            continue;
        place -= 48;
        for (size_t at = place; at < place + 48; at++)
            if (image[at] != 0)
                return 0;
        int distance = (int)((long)symbols[i].st_value - (long)(place + 5));
        image[place] = 0xe9;
        memcpy(image + place + 1, &distance, sizeof distance);
        symbols[i].st_value = place;
    }
    for (size_t at = 0; at + 24 < size; at++)
        if (memcmp(image + at, "\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU", 16) == 0)
            for (int byte = 16; byte < 36; byte++)
                image[at + byte] ^= 0x5a;
    return place < size && mprotect(image, size, PROT_READ | PROT_EXEC) == 0;
}
