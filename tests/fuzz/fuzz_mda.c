/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LVM's on-disk metadata. The target makes a sound 64 KiB device image (label, PV header, one
 * metadata area with a ring of 8 KiB, a text that may wrap), and the input is patches of it: offset
 * u16, length u8, bytes. The first byte says which checksums are made right again afterwards: of
 * the text, of the area's header, of the label. The image lies in a memory file, so io_read is the
 * product's own.
 *
 * What must hold beyond "no crash": an accepted text is what stands in the ring byte by byte
 * (walked here in another way), ends with a NUL, and holds the seqno that is told; no claim of the
 * device makes the reader allocate more than half of the metadata area that lunar makes (the
 * fuzzer's -malloc_limit_mb).
 */
#include <isa-l/crc.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/io.h"
#include "base/le.h"
#include "coordinator/mda.h"
#include "fuzz/fuzz.h"

#define IMAGE_SIZE 65536u
#define SECTOR     512u
#define AREA_START 4096u
#define AREA_SIZE  8192u

static uint8_t image[IMAGE_SIZE];

static uint32_t crc(const uint8_t *bytes, size_t len)
{
    return ~crc32_gzip_refl(~0xf597a6cfu, bytes, len);
}

/* The text that the area's header points at, byte by byte; false if a byte of it is not there. */
static bool ring_text(const uint8_t *area, uint64_t area_size, uint8_t *to, uint64_t *ret_len)
{
    uint64_t offset = le64_get(area + 40), len = le64_get(area + 48);
    uint64_t room = IMAGE_SIZE - (uint64_t)(area - image);

    if (offset < SECTOR || offset >= area_size || len > IMAGE_SIZE || len > area_size - SECTOR)
        return false;
    for (uint64_t i = 0; i < len; i++) {
        uint64_t at = offset + i < area_size ? offset + i : offset + i - area_size + SECTOR;
        if (at >= room)
            return false;
        to[i] = area[at];
    }
    *ret_len = len;
    return true;
}

static void seal(uint8_t which)
{
    static uint8_t text[IMAGE_SIZE];
    uint64_t len;

    if ((which & 1) && ring_text(image + AREA_START, AREA_SIZE, text, &len))
        le32_put(image + AREA_START + 56, crc(text, len));
    if (which & 2)
        le32_put(image + AREA_START, crc(image + AREA_START + 4, SECTOR - 4));
    if (which & 4)
        le32_put(image + SECTOR + 16, crc(image + SECTOR + 20, SECTOR - 20));
}

static void make_sound(bool wraps)
{
    static const char text[] = "lunar-test {\nid = \"abcdef\"\nseqno = 7\nformat = \"lvm2\"\n}\n";
    uint8_t *label = image + SECTOR, *area = image + AREA_START;
    uint64_t offset = wraps ? AREA_SIZE - 20 : SECTOR;

    memset(image, 0, sizeof image);
    memcpy(label, "LABELONE", 8);
    le64_put(label + 8, 1);
    le32_put(label + 20, 32);
    memcpy(label + 24, "LVM2 001", 8);
    le64_put(label + 32 + 40, 32768); /* one data area, then the metadata area */
    le64_put(label + 32 + 72, AREA_START);
    le64_put(label + 32 + 80, AREA_SIZE);
    memcpy(area + 4, " LVM2 x[5A%r0N*>", 16);
    le32_put(area + 20, 1);
    le64_put(area + 24, AREA_START);
    le64_put(area + 32, AREA_SIZE);
    le64_put(area + 40, offset);
    le64_put(area + 48, sizeof text);
    for (uint64_t i = 0; i < sizeof text; i++) {
        uint64_t at = offset + i;
        area[at < AREA_SIZE ? at : at - AREA_SIZE + SECTOR] = (uint8_t)text[i];
    }
    seal(7);
}

static void patch(struct feed *f)
{
    while (f->left > 0) {
        const uint8_t *bytes;
        uint32_t at = feed_u16(f);
        size_t len = feed_bytes(f, feed_u8(f), &bytes);
        if (len > 0)
            memcpy(image + at, bytes, len < IMAGE_SIZE - at ? len : IMAGE_SIZE - at);
    }
}

static void check_text(const struct mda_area *area, const struct mda_state *state, const char *text,
                       size_t len)
{
    static uint8_t want[IMAGE_SIZE];
    uint64_t want_len;

    MUST(area->start + SECTOR <= IMAGE_SIZE &&
             ring_text(image + area->start, area->size, want, &want_len),
         "the text lies in the ring");
    MUST(state->size == want_len && len <= want_len && text[len] == '\0', "it has its length");
    MUST(memcmp(text, want, len) == 0, "it is what stands there");
    MUST(strstr(text, "\nseqno = "), "it has a seqno");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    struct feed f = {data, size};
    struct mda_area areas[MDA_AREAS_MAX];
    struct mda_state state;
    struct error err = ERROR_INIT;
    uint8_t options = feed_u8(&f);

    if (fd < 0)
        fd = memfd_create("lunar-fuzz-mda", MFD_CLOEXEC);
    make_sound((options & 8) != 0);
    patch(&f);
    seal(options);
    MUST(fd >= 0 && io_write(fd, image, sizeof image, 0, &err) == 0, "the image can be written");

    int n = mda_areas(fd, areas, &err);
    MUST(n >= 1 || (n == LUNAR_E_CORRUPT && err.text[0]), "an area, or a reason");
    MUST(n <= MDA_AREAS_MAX, "no more than asked for");
    for (int i = 0; i < n; i++) {
        char *text = NULL;
        size_t len = 0;
        int rc = mda_read_area(fd, &areas[i], &state, &text, &len, &err);
        MUST((rc == 0) == (text != NULL), "a text, or none");
        if (rc == 0)
            check_text(&areas[i], &state, text, len);
        free(text);
    }
    return 0;
}
