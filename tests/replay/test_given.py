"""What is said of the servers, one for all or one for each."""

import pytest

from analyzer.errors import InputError, UsageError
from analyzer.kernel.settings import Settings
from analyzer.replay.given import Given, read_given, shared_out


@pytest.fixture
def files(tmp_path):
    old, new = tmp_path / "old.txt", tmp_path / "new.txt"
    old.write_text("kernel 3.10.0-1160.el7.x86_64\nnet.ipv4.tcp_tw_recycle = 1\n")
    new.write_text("4.19.0-26-amd64\nnet.ipv4.tcp_syncookies = 0\n")
    return [str(old), str(new)]


def test_each_server_has_its_own_kernel_and_settings(files):
    old, new = read_given("auto", {}, files, [16, 64])
    assert old == Given(Settings(tw_recycle=1, backlog=16), "kernel 3.10.0-1160.el7.x86_64")
    assert new == Given(Settings(syncookies=0, backlog=64), "4.19.0-26-amd64")


def test_one_word_holds_for_all(files):
    both = read_given("6.1", {"net.ipv4.tcp_syncookies": 2}, files, [128])
    assert [one.kernel for one in both] == ["6.1", "6.1"]
    assert {(one.settings.syncookies, one.settings.backlog) for one in both} == {(2, 128)}
    assert read_given("auto", {}, (), ()) == [Given(Settings(), "auto")]


def test_a_balancers_capture_stands_for_all_unlike_servers(files):
    old, new = read_given("auto", {}, files, ())
    assert shared_out([old, new], ["server", "server", "lb"]) == [(old,), (new,), (old, new)]
    assert shared_out([old, old], ["server", "server", "lb"]) == [(old,), (old,), (old,)]
    assert shared_out([new], ["server", "lb"]) == [(new,), (new,)]


@pytest.mark.parametrize("sides", [["lb"], ["server"], ["server", "server", "server"]])
def test_entries_and_servers_must_be_as_many(files, sides):
    with pytest.raises(UsageError, match="for 2 servers"):
        shared_out(read_given("auto", {}, files, ()), sides)


def test_files_and_backlogs_must_be_as_many(files):
    with pytest.raises(UsageError, match="--sysctl-file given 2 times"):
        read_given("auto", {}, files, [1, 2, 3])
    with pytest.raises(InputError, match="nowhere"):
        read_given("auto", {}, ["/nowhere"], ())
    with pytest.raises(UsageError, match="unknown setting"):
        read_given("auto", {"net.ipv4.tcp_nonsense": 1}, files, ())
