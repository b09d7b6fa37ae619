#include "rows.h"

#include <stdlib.h>

#define FIRST_CAPACITY 4096

void *row_list_push(row_list_t *list, int64_t row_size)
{
    if (list->count == list->capacity) {
        int64_t capacity = list->capacity == 0 ? FIRST_CAPACITY : list->capacity * 2;
        void *rows = realloc(list->rows, (size_t)(capacity * row_size));
        if (rows == NULL)
            return NULL;
        list->rows = rows;
        list->capacity = capacity;
    }
    return (char *)list->rows + list->count++ * row_size;
}

void *row_list_reserve(row_list_t *list, int64_t count, int64_t row_size)
{
    if (list->rows == NULL || list->capacity < count) {
        row_list_free(list);
        list->rows = malloc((size_t)((count + 1) * row_size));
        list->capacity = list->rows == NULL ? 0 : count;
    }
    return list->rows;
}

void row_list_free(row_list_t *list)
{
    free(list->rows);
    *list = (row_list_t){0};
}
