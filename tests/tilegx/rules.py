#!/usr/bin/env python3
"""tilera/tilegx/rules.py finds what is wrong in machine code that is wrong, and nothing in code that is not."""
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tilera/tilegx"))
import disassembly  # noqa: E402
import rules  # noqa: E402


def listing(*bundles):
    """As objdump prints it; a bundle is its instructions, and perhaps a relocation after an `@`."""
    lines = ["Disassembly of section .text:", "", "0000000000000000 <f>:"]
    for number, bundle in enumerate(bundles):
        text, _, relocation = bundle.partition("@")
        lines.append(f"   {8 * number:x}:\t283bf83dd1483000 \t{{ {text.strip()} }}")
        if relocation:
            lines.append(f"\t\t\t{8 * number:x}: {relocation.strip()}")
    return "\n".join(lines)


def function(*bundles):
    return disassembly.parse(listing(*bundles))[0]


HEADER = "addi udn0, r1, 3"
WORDS = ["move udn0, r2", "move udn0, r3", "move udn0, r4"]
RETURN = "jrp lr"
CALL = "jal 10 <f+0x10> @R_TILEGX_JUMPOFF_X1 memset"
REGISTERS = ["r1", "r2", "r3", "r4"]


class Parsing(unittest.TestCase):
    def test_bundles_operands_and_relocations(self):
        f = function("addi udn0, r0, 3 ; st r1, r2", CALL, "beqz r5, 8 <f+0x8>")
        self.assertEqual([str(i) for i in f.instructions], ["addi udn0, r0, 3", "st r1, r2", "jal 10", "beqz r5, 8"])
        self.assertEqual(f.bundles[1].relocations, [("R_TILEGX_JUMPOFF_X1", "memset")])
        self.assertIsNone(f.bundles[1].target)
        self.assertEqual(f.bundles[2].target, 8)
        self.assertEqual(function("move udn0, r1 ; j 1e8 <void f<g>(h&, unsigned long) [clone .isra.0]+0x1e8>").bundles[0].target, 0x1e8)

    def test_what_sends_and_what_receives(self):
        for text, is_send, received in (("move udn0, r1", True, []), ("move r1, udn0", False, ["udn0"]),
                                        ("add r1, udn2, udn2", False, ["udn2", "udn2"]), ("st udn0, r1", False, ["udn0"]),
                                        ("st r1, udn3", False, ["udn3"]), ("beqz udn1, 8 <f+0x8>", False, ["udn1"]),
                                        ("ld udn0, r1", True, []), ("mtspr CYCLE, udn2", False, ["udn2"])):
            with self.subTest(text):
                i = disassembly.instruction_of(text)
                self.assertEqual((i.is_send, i.received), (is_send, received))

    def test_what_stores(self):
        for name in ("st", "st1", "st4", "stnt", "st_add", "st2_add", "cmpexch", "exch4", "fetchadd", "fetchaddgez4", "wh64"):
            self.assertTrue(disassembly.Instruction(name).is_store, name)
        for name in ("ld", "ld4s", "add", "mf", "shl", "addi"):
            self.assertFalse(disassembly.Instruction(name).is_store, name)


class OnePacket(unittest.TestCase):
    def complaints(self, *bundles):
        return rules.sends(function(*bundles), 3, REGISTERS)

    def test_a_header_and_its_words_are_fine(self):
        self.assertEqual(self.complaints(HEADER, *WORDS, RETURN), [])
        self.assertEqual(self.complaints(HEADER, *WORDS[:2], "move udn0, r4 ; jrp lr"), [])
        self.assertEqual(self.complaints("st r9, r8", HEADER, *WORDS, "st r9, r8", RETURN), [])

    def test_a_store_between_is_found(self):
        for store in ("st r9, r8", "st4 r9, r8", "fetchadd r7, r9, r8"):
            self.assertIn("a store", self.complaints(HEADER, WORDS[0], store, *WORDS[1:], RETURN)[0])
        self.assertIn("a store", self.complaints(HEADER, f"{WORDS[0]} ; st r9, r8", *WORDS[1:], RETURN)[0])
        self.assertIn("a store", self.complaints(f"{HEADER} ; st r9, r8", *WORDS, RETURN)[0])

    def test_a_call_between_is_found(self):
        self.assertIn("a call", self.complaints(HEADER, WORDS[0], CALL, *WORDS[1:], RETURN)[0])
        self.assertIn("a call", self.complaints(HEADER, "jalr r9", *WORDS, RETURN)[0])

    def test_a_fence_a_branch_and_a_receive_between_are_found(self):
        self.assertIn("a fence", self.complaints(HEADER, "mf", *WORDS)[0])
        self.assertIn("a branch", self.complaints(HEADER, "beqz r9, 18 <f+0x18>", *WORDS)[0])
        self.assertIn("a receive", self.complaints(HEADER, "move r9, udn1", *WORDS)[0])

    def test_another_number_of_words_is_found(self):
        self.assertIn("3 times", self.complaints(HEADER, *WORDS[:2], RETURN)[0])
        self.assertIn("5 times", self.complaints(HEADER, *WORDS, "move udn0, r5", RETURN)[0])
        self.assertEqual(self.complaints(RETURN), ["sends nothing"])

    def test_another_order_is_found(self):
        self.assertIn("instead of", self.complaints(HEADER, WORDS[1], WORDS[0], WORDS[2], RETURN)[0])

    def test_registers_need_not_be_known(self):
        f = function(HEADER, WORDS[1], WORDS[0], WORDS[2], RETURN)
        self.assertEqual(rules.sends(f, 3), [])
        self.assertTrue(rules.sends(f, 2))
        self.assertTrue(rules.sends(f, 4))

    def test_a_header_with_another_length_is_found(self):
        self.assertIn("3 words follow", self.complaints("addi udn0, r1, 4", *WORDS, RETURN)[0])
        self.assertIn("3 words follow", self.complaints("move udn0, r1", *WORDS, RETURN)[0])


class AllPackets(unittest.TestCase):
    def complaints(self, *bundles):
        return rules.packets_are_whole(function(*bundles))

    def test_packets_one_after_the_other_and_on_branches_are_fine(self):
        self.assertEqual(self.complaints(HEADER, *WORDS, "st r9, r8", "addi udn0, r1, 1", WORDS[0], RETURN), [])
        self.assertEqual(self.complaints("beqz r5, 28 <f+0x28>", HEADER, *WORDS, HEADER, *WORDS, RETURN), [])
        self.assertEqual(self.complaints(HEADER, *WORDS[:2], "move udn0, r4 ; bnez r5, 0 <f>", RETURN), [])

    def test_packets_with_the_same_end_are_fine(self):
        # Two headers, and a jump from the one to the words that both have.
        self.assertEqual(self.complaints("beqz r5, 18 <f+0x18>", HEADER, "j 20 <f+0x20>", "addi udn0, r9, 3", *WORDS, RETURN), [])

    def test_a_shared_end_that_is_too_short_for_one_is_found(self):
        code = ["beqz r5, 18 <f+0x18>", "addi udn0, r1, 4", "j 20 <f+0x20>", HEADER, *WORDS, RETURN]
        self.assertEqual(self.complaints(*code), ["leaves a packet that lacks 1 words"])

    def test_a_packet_that_is_left_is_found(self):
        self.assertIn("lacks 2 words", self.complaints(HEADER, WORDS[0], RETURN)[0])
        self.assertIn("lacks 3 words", self.complaints(HEADER)[0])
        self.assertTrue(self.complaints(HEADER, "j 8 <f+0x8> @R_TILEGX_JUMPOFF_X1 memset", *WORDS))

    def test_a_branch_in_a_packet_is_found(self):
        self.assertIn("a branch", self.complaints(HEADER, WORDS[0], f"{WORDS[1]} ; bnez r5, 0 <f>", WORDS[2], RETURN)[0])

    def test_a_jump_into_a_packet_is_found(self):
        self.assertIn("does not say", self.complaints("beqz r5, 18 <f+0x18>", HEADER, *WORDS, RETURN)[0])

    def test_a_store_or_call_in_any_packet_is_found(self):
        self.assertIn("a store", self.complaints(HEADER, *WORDS, HEADER, "st r9, r8", *WORDS, RETURN)[0])
        self.assertIn("a call", self.complaints(HEADER, *WORDS, HEADER, CALL, *WORDS, RETURN)[0])

    def test_a_header_that_does_not_tell_its_length_is_found(self):
        self.assertIn("does not say", self.complaints("move udn0, r1", *WORDS, RETURN)[0])

    def test_what_only_a_table_leads_to_is_looked_at(self):
        code = ["jr r5", HEADER, WORDS[0], RETURN]
        self.assertEqual(self.complaints(*code), [])
        tabled = disassembly.parse(listing(*code), "0000000000000000 R_TILEGX_64       .text+0x0000000000000008")[0]
        self.assertEqual(rules.packets_are_whole(tabled), ["leaves a packet that lacks 2 words"])
        self.assertTrue(rules.fences_lead_to_sends(tabled))


class Receiving(unittest.TestCase):
    def test_the_right_queue_is_fine(self):
        self.assertEqual(rules.receives(function("move r0, udn2", RETURN), 2, 1), [])

    def test_another_queue_or_number_is_found(self):
        self.assertTrue(rules.receives(function("move r0, udn1", RETURN), 2, 1))
        self.assertTrue(rules.receives(function("move r0, udn2", "move r1, udn2", RETURN), 2, 1))
        self.assertTrue(rules.receives(function(RETURN), 2, 1))

    def test_several_words_of_one_queue(self):
        self.assertEqual(rules.takes_only(function("move r0, udn2", "st r1, udn2", RETURN), 2), [])
        self.assertTrue(rules.takes_only(function("move r0, udn2", "move r1, udn3", RETURN), 2))
        self.assertTrue(rules.takes_only(function(RETURN), 2))

    def test_a_call_is_found(self):
        self.assertTrue(rules.receives(function("move r0, udn2", CALL, RETURN), 2, 1))
        for tail in ("j 8 <f+0x8> @R_TILEGX_JUMPOFF_X1 memset", "j 800 <g>", "jr r5"):
            self.assertTrue(rules.receives(function(f"move r0, udn2 ; {tail}"), 2, 1), tail)

    def test_a_load_that_does_not_wait_is_found(self):
        self.assertEqual(rules.loads_after_receive(function("move r2, udn2", "ld r0, r1", RETURN)), [])
        self.assertTrue(rules.loads_after_receive(function("ld r0, r1", "move r2, udn2", RETURN)))
        self.assertTrue(rules.loads_after_receive(function("move r2, udn2 ; ld r0, r1", RETURN)))
        self.assertTrue(rules.loads_after_receive(function("move r2, udn2", RETURN)))


class OrderOfTheCompiler(unittest.TestCase):
    def test_accesses_on_both_sides_are_fine(self):
        self.assertEqual(rules.loads_before_and_after_receive(function("ld r0, r1", "move r2, udn2", "ld r3, r1")), [])
        self.assertEqual(rules.stores_before_and_after_packet(function("st r9, r8", HEADER, *WORDS, "st r9, r8")), [])

    def test_accesses_that_were_moved_or_merged_are_found(self):
        for code in (["ld r0, r1", "move r2, udn2"], ["move r2, udn2", "ld r0, r1", "ld r3, r1"], ["ld r0, r1", "ld r3, r1"]):
            self.assertTrue(rules.loads_before_and_after_receive(function(*code)))
        for code in (["st r9, r8", HEADER, *WORDS], [HEADER, *WORDS, "st r9, r8"], [HEADER, "st r9, r8", *WORDS, "st r9, r8"]):
            self.assertTrue(rules.stores_before_and_after_packet(function(*code)))


class Fences(unittest.TestCase):
    def complaints(self, *bundles):
        return rules.fences_before_sends(function(*bundles))

    def test_a_fence_after_the_store_is_fine(self):
        self.assertEqual(self.complaints("st r1, r2", "mf", HEADER, *WORDS, RETURN), [])
        self.assertEqual(self.complaints("st r1, r2", "mf", HEADER, *WORDS, "st r1, r2", RETURN), [])

    def test_a_missing_fence_is_found(self):
        self.assertIn("no fence", self.complaints("st r1, r2", HEADER, *WORDS, RETURN)[0])

    def test_a_fence_in_the_wrong_place_is_found(self):
        self.assertTrue(self.complaints("mf", "st r1, r2", HEADER, *WORDS, RETURN))
        self.assertTrue(self.complaints("st r1, r2", "mf", "st r3, r4", HEADER, *WORDS, RETURN))
        self.assertTrue(self.complaints("st r1, r2", HEADER, *WORDS, "mf", RETURN))

    def test_a_store_in_the_bundle_of_the_send_is_found(self):
        self.assertTrue(self.complaints("st r1, r2", "mf", f"{HEADER} ; st r1, r2", *WORDS, RETURN))

    def test_a_way_around_the_fence_is_found(self):
        self.assertTrue(self.complaints("st r1, r2", "beqz r5, 18 <f+0x18>", "mf", HEADER, *WORDS, RETURN))

    def test_a_call_may_store(self):
        self.assertTrue(self.complaints("st r1, r2", "mf", CALL, HEADER, *WORDS, RETURN))

    def test_a_store_at_the_end_of_a_loop_is_found(self):
        self.assertTrue(self.complaints(HEADER, *WORDS, "st r1, r2", "bnez r5, 0 <f>", RETURN))
        self.assertEqual(self.complaints(HEADER, *WORDS, "st r1, r2", "mf", "bnez r5, 0 <f>", RETURN), [])

    def test_a_store_of_the_callers_needs_a_fence_on_every_way(self):
        lead = lambda *bundles: rules.fences_lead_to_sends(function(*bundles))
        self.assertEqual(lead("mf", "st r1, r2", HEADER, *WORDS, RETURN), [])
        self.assertTrue(lead("st r1, r2", HEADER, *WORDS, RETURN))
        self.assertTrue(lead("beqz r5, 10 <f+0x10>", "mf", HEADER, *WORDS, RETURN))
        self.assertEqual(lead("mf", RETURN), ["sends nothing"])

    def test_nothing_to_look_at_is_no_success(self):
        self.assertEqual(self.complaints("st r1, r2", RETURN), ["sends nothing"])
        self.assertEqual(self.complaints(HEADER, *WORDS, RETURN), ["stores nothing"])


class SpecialRegisters(unittest.TestCase):
    def test_the_right_one_is_fine_and_another_is_found(self):
        f = function("mfspr r0, UDN_DATA_AVAIL", RETURN)
        self.assertEqual(rules.reads_special_register(f, "UDN_DATA_AVAIL"), [])
        self.assertTrue(rules.reads_special_register(f, "CYCLE"))


unittest.main()
