/* A netsh.exe for tests under Wine: it writes its arguments to the file that FWPUCLNT_RECORD names, and fails when asked to
 * stop a second time, as the real one does when no capture runs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int count, char **arguments) {
    static char before[4096];
    FILE *record = fopen(getenv("FWPUCLNT_RECORD"), "rb");
    if (record) {
        before[fread(before, 1, sizeof before - 1, record)] = 0;
        fclose(record);
    }
    record = fopen(getenv("FWPUCLNT_RECORD"), "ab");
    if (!record) return 2;
    for (int i = 1; i < count; i++) fprintf(record, "[%s]", arguments[i]);
    fprintf(record, "\n");
    fclose(record);
    if (strstr(before, "[stop]")) {
        printf("No capture is in progress.\n");
        return 1;
    }
    printf("\n%s\n", strcmp(arguments[count - 1], "stop") ? "Starting capture" : "Stopping capture");
    return 0;
}
