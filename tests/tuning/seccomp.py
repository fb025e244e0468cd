# Applies a profile in Docker's form by seccomp_rule_add_array(3), as container runtimes do, and
# becomes the program in the other arguments:
#
#   python3 tests/tuning/seccomp.py PROFILE.json PROGRAM [ARGUMENT...]
import ctypes, json, os, sys

class Argument(ctypes.Structure):
    _fields_ = [("index", ctypes.c_uint), ("op", ctypes.c_int),
                ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]

EQUAL, MASKED_EQUAL = 4, 7
OPERATORS = {"SCMP_CMP_EQ": EQUAL, "SCMP_CMP_MASKED_EQ": MASKED_EQUAL}

def action(name, errno):
    return 0x7fff0000 if name == "SCMP_ACT_ALLOW" else 0x00050000 | errno

library = ctypes.CDLL("libseccomp.so.2")
library.seccomp_init.restype = ctypes.c_void_p
profile = json.load(open(sys.argv[1]))
default = action(profile["defaultAction"], profile["defaultErrnoRet"])
filter = ctypes.c_void_p(library.seccomp_init(default))
for rule in profile["syscalls"]:
    does = action(rule["action"], rule.get("errnoRet", 1))
    arguments = [Argument(argument["index"], OPERATORS[argument["op"]], argument["value"],
                          argument.get("valueTwo", 0)) for argument in rule.get("args", [])]
    array = (Argument * max(1, len(arguments)))(*arguments)
    for name in rule["names"]:
        number = library.seccomp_syscall_resolve_name(name.encode())
        # Calls of other architectures have no number here.
        if number >= 0 and does != default:
            if library.seccomp_rule_add_array(filter, does, number, len(arguments), array):
                sys.exit(f"no rule for {name}")
if library.seccomp_load(filter):
    sys.exit("the filter was refused")
os.execv(sys.argv[2], sys.argv[2:])
