"""The command lines of `sluice bench`: lists of numbers, lists of names, and complaints of one line."""

import argparse
import re
import sys

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20}


class Parser(argparse.ArgumentParser):
    """Complains in one line, as the rest of `sluice` does."""

    def __init__(self, **more):
        super().__init__(allow_abbrev=False, **more)

    def error(self, message):
        print(f"sluice: {self.prog.removeprefix('sluice ')}: {message}", file=sys.stderr)
        sys.exit(2)


def number(text, most):
    match = re.fullmatch(r"([0-9]{1,9})([KM]?)", text)
    value = int(match[1]) * UNITS[match[2]] if match else 0
    if not 0 < value <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to {most}")
    return value


def numbers_up_to(most):
    """A list: "1,2,4,...,256"; where three dots stand the number before them is doubled."""
    def numbers(text):
        found, dots = [], False
        for word in text.split(","):
            if word == "..." and found and not dots:
                dots = True
                continue
            value = number(word, most)
            if dots and value < found[-1]:
                raise argparse.ArgumentTypeError("three dots only go up")
            while dots and found[-1] * 2 < value:
                found.append(found[-1] * 2)
            found.append(value)
            dots = False
        if dots:
            raise argparse.ArgumentTypeError("three dots lead nowhere")
        return found
    return numbers


def names_of(allowed):
    def names(text):
        found = text.split(",")
        for name in found:
            if name not in allowed:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(allowed)}")
        return list(dict.fromkeys(found))
    return names


def seconds(text):
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0.01 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not from 0.01 to 3600")
    return value


def add_rounds(parser, rounds, length):
    parser.add_argument("--rounds", type=lambda text: number(text, 1000), default=rounds, metavar="N",
                        help="alternating rounds, of which the medians are told (default %(default)s)")
    parser.add_argument("--seconds", type=seconds, default=length, metavar="S",
                        help="of one measurement, without the warm-up (default %(default)s)")
    parser.add_argument("--json", metavar="FILE", default="",
                        help="write an array of rows to this file; - for standard output, instead of the table")


def add_coordinator(parser):
    parser.add_argument("--poll", choices=["adaptive", "busy"], default="adaptive", help="how the coordinator waits")
    parser.add_argument("--protect", choices=["none", "regions", "keys"], default="regions", help="what the coordinator does about it")


def coordinator_options(options):
    return [f"--poll={options.poll}", f"--protect={options.protect}"]
