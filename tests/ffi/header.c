/* The header as C11 sees it: every function is there to be called, and every structure as large as it was made. */
#include "plimsoll.h"

_Static_assert(sizeof(plimsoll_stamp) == 16, "stamp");
_Static_assert(sizeof(plimsoll_stream_stamp) == 24, "stream stamp");
_Static_assert(sizeof(plimsoll_completion) == 48, "completion");
_Static_assert(sizeof(plimsoll_role) == 24, "role");
_Static_assert(sizeof(plimsoll_entry) == 72, "entry");
_Static_assert(sizeof(plimsoll_stream_options) == 56, "stream options");
_Static_assert(sizeof(plimsoll_status) == 4 && sizeof(plimsoll_acks) == 4, "enumerations");

int main(void) {
    plimsoll_stream_options options;
    if (plimsoll_stream_options_init(&options, sizeof options) != PLIMSOLL_OK) return 1;
    return plimsoll_status_text(PLIMSOLL_OK) == 0 || plimsoll_version() == 0;
}
