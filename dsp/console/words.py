"""The pages' words in Simplified Chinese, by their English; a test finds every word that a page uses and this lacks."""

from __future__ import annotations

from collections.abc import Callable

ZH: dict[str, str] = {
    "Skip to content": "跳到正文", "Main": "主导航", "Overview": "概览", "Campaigns": "广告系列", "Line items": "投放项",
    "Reports": "报表", "Changes": "变更记录", "Sign out": "退出", "Sign in": "登录", "That did not work": "操作未成功",
    "E-mail": "电子邮箱", "Password": "密码", "Welcome": "欢迎", "Enter": "进入",
    "Code from your authenticator, if you use one": "验证器中的动态码（如已启用）",
    "This system is new. Choose how you will sign in; you become its owner.": "这是一个新系统。请设置登录方式，您将成为所有者。",
    "Password, 12 characters or more": "密码（至少 12 个字符）",
    "This link was used or is too old.": "此链接已被使用或已过期。",
    "Nothing has been spent in the last 30 days. Make a campaign and resume it; what it spends shows here within seconds.":
        "最近 30 天没有花费。请新建并启用广告系列，花费会在数秒内显示于此。",
    "last 30 days": "最近 30 天", "Spend": "花费", "Impressions": "展示", "Clicks": "点击", "Applied": "申请",
    "Approved": "批准", "Funded": "放款", "Cost per funded customer": "每位放款客户成本", "Campaign": "广告系列",
    "Status": "状态", "Budget": "预算", "Search": "搜索", "all": "全部", "active": "投放中", "paused": "已暂停",
    "archived": "已归档", "Show": "显示", "New campaign": "新建广告系列", "New line item": "新建投放项", "Name": "名称",
    "Maximum bid, CPM": "最高出价（CPM）", "Total budget": "总预算", "Daily budget": "每日预算", "Do": "操作",
    "Pause": "暂停", "Resume": "启用", "Nothing here.": "没有内容。", "Next page": "下一页", "New": "新建",
    "Advertiser": "广告主", "Offer": "产品", "Pacing": "投放节奏", "Targeting (JSON)": "定向（JSON）",
    "Creatives (JSON)": "创意（JSON）", "Save": "保存", "Start (2026-01-31)": "开始（2026-01-31）",
    "End (2026-01-31)": "结束（2026-01-31）", "When (UTC)": "时间（UTC）", "Who": "操作人", "What": "内容",
    "Before and after": "变更前后", "Undo": "撤销", "By": "维度", "advertiser": "广告主", "campaign": "广告系列",
    "line_item": "投放项", "exchange": "交易平台", "creative": "创意", "From": "从", "To": "到", "Each day": "按天",
    "no": "否", "yes": "是", "Download CSV": "下载 CSV", "Spend by day": "每日花费", "Day": "日期", "Currency": "货币",
    "impressions": "展示", "spend": "花费", "media": "媒体成本", "clicks": "点击", "registered": "注册", "applied": "申请",
    "approved": "批准", "funded": "放款", "defaulted": "违约", "views": "浏览转化", "value": "放款金额", "worth": "风险调整价值",
}  # fmt: skip


def translator(lang: str) -> Callable[[str], str]:
    """The function ``_`` of the pages."""
    return (lambda text: ZH.get(text, text)) if lang == "zh" else (lambda text: text)
