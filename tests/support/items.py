"""What an evaluation set asks about, and prose that it may stand in."""

from __future__ import annotations

import random

CONTEXT = (
    "江边的老船工说，从前渡口每天要过三百多人，如今石桥修好了，渡船只在赶集的日子开两趟，"
    "其余时候就拴在河湾的老柳树下晒太阳，船篷里常有野猫来睡觉。"
)
SHORT = "渡口从前归谁管理呢"
SOME = (
    "茶馆的门板还没有卸完，跑堂的已经把第一壶水烧开了。",
    "山里的柿子要等霜降以后才肯变甜，心急的孩子总被涩得直吐舌头。",
    "修钟表的师傅戴着放大镜，半天才抬头问一句有什么事。",
    "雨停以后，巷子里的青石板亮得能照见对面的屋檐。",
    "她把旧毛衣拆了重新织，织到袖口才发现线不够。",
    "学校后面的小路通向一片废弃的果园，春天仍旧开满了花。",
    "邻居家的鸽子每天傍晚绕着水塔飞三圈，然后才肯回笼。",
    "爷爷的收音机只能收到两个台，一个唱戏，一个报天气。",
    "码头上的起重机整夜不停，灯光把半条江都照黄了。",
    "裁缝铺的剪刀挂在墙上，谁也不许拿去剪纸。",
    "冬天的第一场雪落在晾衣绳上，像多出来的一排白毛巾。",
    "图书馆的管理员记得每个人借过的书，却总忘记自己的伞。",
)


def prose(number: int) -> str:
    """A text of its own for each number."""
    chance = random.Random(number)
    sentences = chance.sample(SOME, 8)
    return f"第{number}篇随笔\n\n" + "".join(
        f"{sentence}那是第{number * 7 + k}天的事。" for k, sentence in enumerate(sentences)
    )
