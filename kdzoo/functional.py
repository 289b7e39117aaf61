"""The pure functions of the methods, under their registered names."""

from kdzoo.methods.ab import ab
from kdzoo.methods.afd import afd
from kdzoo.methods.at import at
from kdzoo.methods.at_paper import at_paper
from kdzoo.methods.bss import bss
from kdzoo.methods.byot import byot
from kdzoo.methods.catkd import catkd
from kdzoo.methods.cc import cc
from kdzoo.methods.crd import crd
from kdzoo.methods.crd_queue import crd_queue
from kdzoo.methods.crld import crld
from kdzoo.methods.cskd import cskd
from kdzoo.methods.ctkd import ctkd
from kdzoo.methods.cwd import cwd
from kdzoo.methods.deit_hard import deit_hard
from kdzoo.methods.deit_soft import deit_soft
from kdzoo.methods.dist import dist
from kdzoo.methods.dkd import dkd
from kdzoo.methods.dml import dml
from kdzoo.methods.fitnet import fitnet
from kdzoo.methods.fsp import fsp
from kdzoo.methods.ft import ft
from kdzoo.methods.ft_paraphraser import ft_paraphraser
from kdzoo.methods.hinton import hinton
from kdzoo.methods.ickd import ickd
from kdzoo.methods.irg import irg
from kdzoo.methods.itrd import itrd
from kdzoo.methods.kdcl import kdcl
from kdzoo.methods.logit_std import logit_std
from kdzoo.methods.logit_std_dkd import logit_std_dkd
from kdzoo.methods.logits import logits
from kdzoo.methods.lwm import lwm
from kdzoo.methods.mgd import mgd
from kdzoo.methods.mlld import mlld
from kdzoo.methods.mlld_released import mlld_released
from kdzoo.methods.nkd import nkd
from kdzoo.methods.norm import norm
from kdzoo.methods.nst import nst
from kdzoo.methods.ofa import ofa
from kdzoo.methods.ofd import ofd
from kdzoo.methods.pefd import pefd
from kdzoo.methods.pkd import pkd
from kdzoo.methods.pkt import pkt
from kdzoo.methods.pskd import pskd
from kdzoo.methods.reviewkd import reviewkd_hcl
from kdzoo.methods.rkd import rkd
from kdzoo.methods.rld import rld
from kdzoo.methods.sdd import sdd
from kdzoo.methods.semckd import semckd
from kdzoo.methods.simkd import simkd
from kdzoo.methods.sobolev import sobolev
from kdzoo.methods.sp import sp
from kdzoo.methods.srd import srd
from kdzoo.methods.srrl import srrl
from kdzoo.methods.tfkd import tfkd
from kdzoo.methods.ttm import ttm
from kdzoo.methods.vid import vid
from kdzoo.methods.vkd import vkd
from kdzoo.methods.wsld import wsld
from kdzoo.methods.wttm import wttm

__all__ = [
    "ab",
    "afd",
    "at",
    "at_paper",
    "bss",
    "byot",
    "catkd",
    "cc",
    "crd",
    "crd_queue",
    "crld",
    "cskd",
    "ctkd",
    "cwd",
    "deit_hard",
    "deit_soft",
    "dist",
    "dkd",
    "dml",
    "fitnet",
    "fsp",
    "ft",
    "ft_paraphraser",
    "hinton",
    "ickd",
    "irg",
    "itrd",
    "kdcl",
    "logit_std",
    "logit_std_dkd",
    "logits",
    "lwm",
    "mgd",
    "mlld",
    "mlld_released",
    "nkd",
    "norm",
    "nst",
    "ofa",
    "ofd",
    "pefd",
    "pkd",
    "pkt",
    "pskd",
    "reviewkd_hcl",
    "rkd",
    "rld",
    "sdd",
    "semckd",
    "simkd",
    "sobolev",
    "sp",
    "srd",
    "srrl",
    "tfkd",
    "ttm",
    "vid",
    "vkd",
    "wsld",
    "wttm",
]
